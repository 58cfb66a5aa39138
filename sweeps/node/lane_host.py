"""The process that several trials share: `python -m sweeps.node.lane_host SWEEP ADDRESS`; see `sweeps.node.lanes`.

It ends when the last worker has closed its connection. An error that leaves the GPU of no more use, memory of the
machine that runs short, or a trial that does not leave ends it at once, with the reason in the folder of each of its
trials.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread, Timer
from typing import Any, NoReturn

from sweeps.errors import NoRoomHere, WorkerMustLeave
from sweeps.node.beside import node_folder, say_ready
from sweeps.node.lanes import NEXT, Begin
from sweeps.node.memory_guard import MemoryGuard, leave
from sweeps.trial.failures import Failure
from sweeps.trial.messages import Message
from sweeps.trial.one_ahead import asked_to_leave

_FIRST_SECONDS = 60.0
"""How long it waits for the worker that started it."""
_PATIENCE_SECONDS = 300.0
"""How long a trial may take to leave. It asks before each batch, but not while it prepares its faces."""


class LaneHost:
    """Runs the trials of the workers that connect at `address`."""

    def __init__(self, sweep: str, address: Path) -> None:
        self._sweep, self._address = sweep, address
        self._lock, self._ending = Lock(), Lock()
        self._connected = 0
        self._lanes: list[_Lane] = []
        self._guard = MemoryGuard()

    def serve(self) -> None:
        """Take connections, each in a thread of its own; ends with the process."""
        with Listener(str(self._address), "AF_UNIX", backlog=16) as listener:
            say_ready()
            Timer(_FIRST_SECONDS, self._end_if_deserted).start()
            while True:
                pipe = listener.accept()
                with self._lock:
                    self._connected += 1
                Thread(target=self._answer, args=(pipe,), daemon=True).start()

    def _answer(self, pipe: Connection) -> None:
        """Obey one worker."""
        lane: _Lane | None = None
        try:
            with suppress(EOFError, OSError), pipe:
                while True:
                    order = pickle.loads(pipe.recv_bytes())
                    if isinstance(order, Begin):
                        lane = self._begun(order, pipe)
                        pipe.send_bytes(pickle.dumps(lane is not None))
                    elif lane is not None and order == NEXT:
                        lane.orders.put(NEXT)
                    else:
                        self._end(lane)
                        lane = None
                        pipe.send_bytes(pickle.dumps(True))
        finally:  # also after an order that cannot be read here
            self._end(lane)
            with self._lock:
                self._connected -= 1
            self._end_if_deserted()

    def _begun(self, begin: Begin, pipe: Connection) -> _Lane | None:
        with self._lock:
            if len(self._lanes) >= min([begin.most, *(lane.begin.most for lane in self._lanes)]):
                return None
            lane = _Lane(self, begin, pipe)
            self._lanes.append(lane)
            self._watch()
        lane.start()
        return lane

    def _end(self, lane: _Lane | None) -> None:
        """Have a trial leave, and wait until it has."""
        if lane is None:
            return
        lane.left.set()
        lane.orders.put(None)
        lane.join(_PATIENCE_SECONDS)
        if lane.is_alive():
            faulthandler.dump_traceback(all_threads=True)
            self.leave(f"trial {lane.begin.task.trial} did not end in {_PATIENCE_SECONDS:.0f} s")
        with self._lock:
            self._lanes.remove(lane)
            self._watch()

    def _watch(self) -> None:
        self._guard.watch([lane.begin.task for lane in self._lanes])

    def leave(self, reason: str) -> NoReturn:
        """End the process; each of its trials is retried."""
        leave([lane.begin.task for lane in list(self._lanes)], reason)

    def _end_if_deserted(self) -> None:
        with self._ending:  # until the process is gone: another thread would make the folder again
            with node_folder(self._sweep):  # which a worker holds while it looks for a process
                with self._lock:
                    if self._connected:
                        return
                self._address.unlink(missing_ok=True)
            os._exit(0)


class _Lane(Thread):
    """One trial."""

    def __init__(self, host: LaneHost, begin: Begin, pipe: Connection) -> None:
        super().__init__(name=f"trial {begin.task.trial}", daemon=True)
        self.begin, self.orders, self.left = begin, SimpleQueue[Any](), Event()
        self._host, self._pipe = host, pipe

    def run(self) -> None:
        """Yield a message for each order, until the worker has it leave."""
        asked_to_leave.set(self.left)
        with closing(self._messages()) as messages:
            try:
                while self.orders.get() == NEXT:
                    self._pipe.send_bytes(pickle.dumps(self._next(messages)))
            except OSError:
                self.left.set()  # the worker is gone

    def _messages(self) -> Generator[Message]:
        yield from self.begin.body(self.begin.task)

    def _next(self, messages: Iterator[Message]) -> Message | Failure | None:
        try:
            return next(messages, None)
        except BaseException as error:  # else the thread would end, and its worker wait for ever
            if isinstance(error, WorkerMustLeave) and not isinstance(error, NoRoomHere):
                self._host.leave(f"in trial {self.begin.task.trial}: {error}")
            return Failure.of(error)


if __name__ == "__main__":
    LaneHost(sys.argv[1], Path(sys.argv[2])).serve()
