"""Draws the pictures of trials that have ended, in separate processes that need no slot."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Self

from fer_common.own_modules import command, environment
from sweeps.driver.director import Director
from sweeps.runs import command_for
from sweeps.spec import SweepSpec, recorded_spec
from sweeps.stop_signals import Deadline
from sweeps.trial.messages import ToDraw
from tracking.record.events import Event, TrialDrawn, TrialEnded
from tracking.record.folder_lock import FolderHeldError, hold_folder
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

_MOST_PROCESSES = 4
_LONGEST_SECONDS = 300.0
"""Timeout per trial; a machine that lacks the faces must first prepare them."""
_HURRIED_SECONDS = 2.0
_POLL_SECONDS = 0.2


class TrialPictures:
    """Draws the pictures of one sweep's trials. The journal has a trial's end before, and `TrialDrawn` after that.

    So the next driver, or `report`, knows which pictures a killed sweep has not drawn.
    """

    def __init__(self, folder: SweepFolder, spec: SweepSpec, on_warning: Callable[[str], None]) -> None:
        self._folder, self._spec, self._on_warning = folder, spec, on_warning
        self._threads = ThreadPoolExecutor(min(_MOST_PROCESSES, os.cpu_count() or 1), "draw")
        self._processes: list[subprocess.Popen[str]] = []
        self._idle: list[subprocess.Popen[str]] = []
        self._waiting: dict[Future[str], TrialDrawn] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        self._threads.shutdown()
        for process in self._processes:
            process.communicate()

    def __call__(self, event: Event, history: SweepHistory) -> None:
        """Draw a trial that has ended; called as a listener."""
        if isinstance(event, TrialEnded) and event.undrawn:
            self.add(history.trials[event.trial])

    def attend(self, director: Director) -> None:
        """Record drawn pictures; called regularly by the director."""
        for drawn in self.drawn():
            director.record_drawn(drawn)

    def add(self, trial: TrialHistory) -> None:
        """Queue a finished trial for drawing."""
        asked = ToDraw(
            folder=str(self._folder.trial(trial.number).root.absolute()),
            faces=self._spec.faces_of(trial.started),
            data=self._spec.data_of(trial.started),
            started=trial.started,
            epochs=tuple(trial.epochs),
        )
        job = self._threads.submit(self._draw, asked.model_dump_json())
        self._waiting[job] = TrialDrawn(trial=trial.number, epochs=trial.last_epoch)

    def drawn(self) -> Iterator[TrialDrawn]:
        """The trials whose pictures were written since the last call, to be recorded."""
        for job in [job for job in self._waiting if job.done()]:
            about = self._waiting.pop(job)
            if fault := job.result():
                self._warn(f"trial {about.trial}: its pictures were not drawn ({fault})")
            else:
                yield TrialDrawn(trial=about.trial, epochs=about.epochs)

    def rest(self, is_hurried: Callable[[], bool]) -> Iterator[TrialDrawn]:
        """Wait for the remaining trials, and yield each when it is drawn; only briefly if `is_hurried` (after a
        signal)."""
        deadline = Deadline(_LONGEST_SECONDS, _HURRIED_SECONDS, is_hurried)
        while self._waiting and (left := deadline.left()) > 0:
            if wait(self._waiting, min(left, _POLL_SECONDS), FIRST_COMPLETED).done:
                yield from self.drawn()
                deadline.renew()
        if self._waiting:
            self._warn(f"the pictures of {len(self._waiting)} trials are not drawn yet")

    def _warn(self, fault: str) -> None:
        root = self._folder.root
        self._on_warning(f"{fault}; draw them with: {command_for(root.parent, 'report', root.name)}")

    def _draw(self, asked: str) -> str:
        """Let an idle or a new process draw. Returns the error, if any."""
        try:
            process = self._idle_or_new()
        except OSError as error:
            return f"the drawing process did not start: {error}"
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(asked + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        if not answer.endswith("\n"):
            return f"the drawing process ended with exit code {process.wait()}"
        self._idle.append(process)
        return str(json.loads(answer))

    def _idle_or_new(self) -> subprocess.Popen[str]:
        with contextlib.suppress(IndexError):
            while (process := self._idle.pop()).poll() is not None:
                pass
            return process
        return self._start()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command("sweeps.trial.draw_trials"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # the driver handles Ctrl-C
            env=environment(),
        )
        self._processes.append(process)
        return process


def draw_left(folder: SweepFolder, on_warning: Callable[[str], None]) -> bool:
    """Draw and record the pictures that a killed or stopped sweep has not drawn. Returns whether there were any.

    If the sweep has a driver, the driver draws them.
    """
    if not SweepHistory.load(folder.journal).undrawn:
        return False
    try:
        with hold_folder(folder.root), Journal.open(folder.journal) as journal:
            history = SweepHistory.load(folder.journal)
            with TrialPictures(folder, recorded_spec(history), on_warning) as pictures:
                for trial in history.undrawn:
                    pictures.add(trial)
                for drawn in pictures.rest(lambda: False):
                    journal.append(drawn)
    except FolderHeldError:
        return False
    return True
