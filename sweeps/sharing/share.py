"""One running sweep's share of the slots: how many it may use now, and how many it uses."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from fer_common.user import user_name
from sweeps.planning.resources import Slots
from sweeps.sharing.division import Claim, capacity_of, divide, entitled, is_overfull
from sweeps.sharing.files import ClaimStore

LOOK_SECONDS = 0.5
"""Maximum age of the known claims of other sweeps."""

QUANTUM_SECONDS = 20.0
"""Slot-seconds after which an indivisible slot rotates."""

_MOST_OWED_SECONDS = 3600.0
_REPEAT_SECONDS = 600.0


class Sweep(Protocol):
    """What sharing needs of a running sweep."""

    @property
    def out(self) -> Sequence[int]:
        """Trials that have a worker."""
        ...

    @property
    def demand(self) -> int:
        """Number of slots that it could use now."""
        ...

    def limit(self, slots: int | None, by: str) -> None:
        """Run at most `slots` trials; further ones are paused at their next report."""
        ...


class SharedSlots:
    """A share of a machine's or cluster's slots, by the claims of all sweeps there. For one thread.

    A slot is claimed before it is used and released after it was used, so the claims never exceed the capacity.
    """

    def __init__(
        self,
        store: ClaimStore,
        claim: Claim,
        most: int,
        *,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        look_seconds: float = LOOK_SECONDS,
        quantum_seconds: float = QUANTUM_SECONDS,
    ) -> None:
        """`most` is the maximum number of slots. Raises OSError if the claim cannot be written."""
        self._store, self._own, self._most, self._say, self._clock = store, claim, most, say, clock
        self._look_seconds, self._quantum = look_seconds, quantum_seconds
        self._looked = self._counted = clock()
        self._said: float | None = None
        self._others: list[Claim] = []
        self._granted, self._entitled, self._is_overfull = 0, 0.0, False
        store.put(claim)
        self._written = claim
        self._look()

    def __call__(self, sweep: Sweep) -> None:
        """Limit a sweep to the slots that it may use now."""
        sweep.limit(self.slots_for(len(sweep.out), sweep.demand), "share")

    @property
    def held(self) -> int:
        """Number of slots that are claimed now."""
        return self._own.held

    @property
    def others(self) -> Sequence[Claim]:
        """The claims of the other sweeps, as last read."""
        return self._others

    def slots_for(self, used: int, wanted: int) -> int:
        """How many of the `wanted` slots may be used now, while `used` are still in use."""
        wanted = min(wanted, self._most)
        if wanted != self._own.wanted:
            self._change(wanted=wanted)
            self._look()
        elif self._clock() - self._looked >= self._look_seconds:
            self._look()
        if self._granted > self._own.held:
            self._raise_to(self._granted)
        else:
            self._change(held=max(used, self._granted))
        self._say_what_it_waits_for()
        return min(self._own.held, self._granted)

    def wait(self) -> None:
        """Return once there is a slot, and keep it."""
        while not self.slots_for(0, 1):
            time.sleep(self._look_seconds)

    def set_rank(self, priority: int, weight: float) -> None:
        """Change the priority and weight from now on."""
        self._change(priority=priority, weight=weight)
        self._look()

    def close(self) -> None:
        """Release all slots."""
        self._store.close()

    def _raise_to(self, count: int) -> None:
        """Claim more slots, and withdraw if others have not released theirs yet.

        The other claims are read after this one is written, so that of two simultaneous claims one sees the other.
        """
        before = self._own.held
        while count > before:
            self._change(held=count)
            self._look()
            if count <= self._granted and not self._is_overfull:
                return
            count -= 1
        self._change(held=before)

    def _change(self, **fields: object) -> None:
        if any(getattr(self._own, name) != value for name, value in fields.items()):
            self._count()
            self._own = self._own.model_copy(update=fields)
            self._put()

    def _put(self) -> None:
        with suppress(OSError):  # a full disk: the others see the last claim
            if self._own != self._written:
                self._store.put(self._own)
                self._written = self._own

    def _look(self) -> None:
        self._looked = self._clock()
        self._count()
        self._put()
        with suppress(OSError):
            self._others = [claim for claim in self._store.all() if claim.id != self._own.id]
        claims = [self._own, *self._others]
        capacity = capacity_of(claims)
        self._granted = divide(claims, capacity, self._quantum)[self._own.id]
        self._entitled = entitled(claims, capacity)[self._own.id]
        self._is_overfull = is_overfull(claims, capacity)

    def _count(self) -> None:
        """Add the slot-seconds since the last call that it was entitled to and did not have."""
        now = self._clock()
        passed, self._counted = now - self._counted, now
        owed = self._own.owed + (self._entitled - self._own.held) * passed if self._others else 0.0
        owed = max(-_MOST_OWED_SECONDS, min(owed, _MOST_OWED_SECONDS))
        self._own = self._own.model_copy(update={"owed": owed})

    def _say_what_it_waits_for(self) -> None:
        now = self._clock()
        if self._own.held or not self._own.wanted or (self._said is not None and now - self._said < _REPEAT_SECONDS):
            return
        self._said = now
        holders = "; ".join(map(described, [claim for claim in self._others if claim.held] or self._others))
        when = "; one becomes free at the next report of a trial" if self._granted else ""
        self._say(f"waiting for a slot: in use by {holders}{when}")


def described(claim: Claim) -> str:
    """A claim as text."""
    rank = f"priority {claim.priority}" + (f", weight {claim.weight:g}" if claim.weight != 1 else "")
    return f"sweep {claim.sweep} of {claim.owner} ({rank}, {claim.held} slot{'s' * (claim.held != 1)})"


def new_claim(sweep: str, out: str, slots: Slots, priority: int, weight: float, *, on_cluster: bool) -> Claim:
    """The claim of a sweep that this process will drive."""
    return Claim(
        id=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
        sweep=sweep,
        out=out,
        owner=user_name(),
        host=socket.gethostname(),
        pid=os.getpid(),
        priority=priority,
        weight=weight,
        cores=slots.cpus_per_trial,
        gpus=slots.gpus_per_trial,
        since=time.time(),
        all_cores=_core_names(slots, on_cluster),
        all_gpus=_gpu_names(slots, on_cluster),
    )


def _core_names(slots: Slots, on_cluster: bool) -> frozenset[int]:
    own = range(slots.cpus) if on_cluster or sys.platform == "darwin" else sorted(os.sched_getaffinity(0))
    return frozenset(own[: slots.cpus])  # a container's CPU limit may be lower than its number of cores


def _gpu_names(slots: Slots, on_cluster: bool) -> frozenset[str]:
    visible = "" if on_cluster else os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",")] if visible else map(str, range(slots.gpus))
    return frozenset(islice(names, slots.gpus))
