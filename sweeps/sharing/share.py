"""One running sweep's share of the slots: how many it may use now, and how many it uses."""

from __future__ import annotations

import math
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from fer_common.user import user_name
from sweeps.planning.resources import Slots
from sweeps.sharing.division import Claim, Grant, capacity_of, entitled, grants, is_overfull, used_on
from sweeps.sharing.files import ClaimStore
from sweeps.sharing.gpu_places import GpuPlaces

LOOK_SECONDS = 0.5
"""Maximum age of the known claims of other sweeps."""

QUANTUM_SECONDS = 20.0
"""Slot-seconds after which an indivisible slot rotates."""

_MOST_OWED_SECONDS = 3600.0
_REPEAT_SECONDS = 600.0
_ROUNDING = 1e-6


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

    def least_promising(self) -> Sequence[int]:
        """The trials that have a worker, the least promising first."""
        ...

    def move(self, number: int) -> None:
        """Have a trial leave its GPU at its next report, and continue on another one."""
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
        places: GpuPlaces | None = None,
        trials_per_slot: int = 1,
    ) -> None:
        """`most` is how many trials it can run at any time; `places` is None where its driver does not choose the GPUs.
        With `trials_per_slot` above 1 a slot is for a trial of the largest net, or for several of the smallest.

        Raises OSError if the claim cannot be written.
        """
        self._places = places if claim.gpus else None
        if self._places:
            self._places.claimed = {}
        self._store, self._own, self._most, self._say, self._clock = store, claim, most, say, clock
        self._trials_per_slot = trials_per_slot
        self._look_seconds, self._quantum = look_seconds, quantum_seconds
        self._looked = self._counted = clock()
        self._said: float | None = None
        self._others: list[Claim] = []
        self._grant, self._entitled, self._is_overfull = Grant(), 0.0, False
        store.put(claim)
        self._written = claim
        self._look()

    def __call__(self, sweep: Sweep) -> None:
        """Limit a sweep to the slots that it may use now, and move trials off GPUs that others are to have."""
        slots = self.slots_for(len(sweep.out), sweep.demand)
        if self._places:
            for number in self._places.beyond(self._grant.on, sweep.least_promising):
                sweep.move(number)
        sweep.limit(slots, "share")

    @property
    def held(self) -> int:
        """Number of slots that are claimed now."""
        return self._own.held

    @property
    def others(self) -> Sequence[Claim]:
        """The claims of the other sweeps, as last read."""
        return self._others

    def slots_for(self, used: int, wanted: int) -> int:
        """How many of the `wanted` trials may run now, while `used` still run."""
        used, wanted = (math.ceil(trials / self._trials_per_slot) for trials in (used, min(wanted, self._most)))
        if self._places and self._own.all_gpus != frozenset(self._places.names):
            self._change(all_gpus=frozenset(self._places.names))
        if wanted != self._own.wanted:
            self._change(wanted=wanted)
            self._look()
        elif self._clock() - self._looked >= self._look_seconds:
            self._look()
        self._release(used)
        if self._grant.slots > self._own.held:
            self._raise_to_grant()
        self._say_that_it_waits()
        return min(self._own.held, self._grant.slots) * self._trials_per_slot

    @property
    def waits_for(self) -> str:
        """Who has the slots that it waits for; empty if it has a slot, or wants none."""
        if self._own.held or not self._own.wanted:
            return ""
        return "; ".join(map(described, self._holders or self._others))

    @property
    def _holders(self) -> list[Claim]:
        return [claim for claim in self._others if claim.held]

    def set_rank(self, priority: int, weight: float) -> None:
        """Change the priority and weight from now on."""
        self._change(priority=priority, weight=weight)
        self._look()

    def close(self) -> None:
        """Release all slots."""
        self._store.close()

    def _release(self, used: int) -> None:
        """Give back what is neither granted nor in use."""
        if self._places is None:
            self._change(held=max(used, min(self._own.held, self._grant.slots)))
            return
        in_use, granted = self._places.used, self._grant.on
        kept = {name: max(in_use[name], min(part, granted.get(name, 0.0))) for name, part in self._own.on.items()}
        self._claim({name: part for name, part in kept.items() if part > _ROUNDING})

    def _raise_to_grant(self) -> None:
        """Claim more slots, and withdraw if others have not released theirs yet.

        The other claims are read after this one is written, so that of two simultaneous claims one sees the other.
        """
        before, on = self._own.held, self._own.on
        further = self._further() if self._places else [()] * (self._grant.slots - before)
        while further:
            self._own_with(before, on, further)
            self._look()
            if self._own.held <= self._grant.slots and not self._is_overfull:
                return
            further.pop()
        self._own_with(before, on, further)

    def _further(self) -> list[tuple[str, ...]]:
        """The GPUs of each slot that is granted, not claimed yet, and free of others' slots."""
        parts = self._own.parts
        free = {name: 1 - part for name, part in used_on([self._own, *self._others]).items()}
        missing = {name: part - self._own.on.get(name, 0.0) for name, part in self._grant.on.items()}
        found: list[tuple[str, ...]] = []
        for _ in range(self._grant.slots - self._own.held):
            open_to = [
                name for name in sorted(missing) if min(missing[name], free.get(name, 1.0)) > parts[0] - _ROUNDING
            ]
            if len(open_to) < len(parts):
                break
            found.append(tuple(open_to[: len(parts)]))
            for name in found[-1]:
                missing[name] -= parts[0]
                free[name] = free.get(name, 1.0) - parts[0]
        return found

    def _own_with(self, held: int, on: Mapping[str, float], further: Sequence[tuple[str, ...]]) -> None:
        """Claim so many slots, and these more."""
        if self._places is None:
            self._change(held=held + len(further))
            return
        more = dict(on)
        for gpus in further:
            for name, part in zip(gpus, self._own.parts, strict=True):
                more[name] = more.get(name, 0.0) + part
        self._claim(more)

    def _claim(self, on: dict[str, float]) -> None:
        """Claim so much of each GPU; trials may take that."""
        assert self._places
        self._change(on=on, held=math.ceil(sum(on.values()) / self._own.gpus - _ROUNDING))
        self._places.claimed = on

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
        self._grant = grants(claims, capacity, self._quantum)[self._own.id]
        self._entitled = entitled(claims, capacity)[self._own.id]
        self._is_overfull = is_overfull(claims, capacity)

    def _count(self) -> None:
        """Add the slot-seconds since the last call that it was entitled to and did not have."""
        now = self._clock()
        passed, self._counted = now - self._counted, now
        owed = self._own.owed + (self._entitled - self._own.held) * passed if self._others else 0.0
        owed = max(-_MOST_OWED_SECONDS, min(owed, _MOST_OWED_SECONDS))
        self._own = self._own.model_copy(update={"owed": owed})

    def _say_that_it_waits(self) -> None:
        now = self._clock()
        if not self.waits_for or (self._said is not None and now - self._said < _REPEAT_SECONDS):
            return
        self._said = now
        why = "in use by" if self._holders else "the next ones go to"
        when = "; one becomes free at the next report of a trial" if self._grant.slots else ""
        self._say(f"waiting for a slot: {why} {self.waits_for}{when}")


def described(claim: Claim) -> str:
    """A claim as text."""
    rank = f"priority {claim.priority}" + (f", weight {claim.weight:g}" if claim.weight != 1 else "")
    return f"sweep {claim.sweep} of {claim.owner} ({rank}, {claim.held} slot{'s' * (claim.held != 1)})"


def new_claim(
    sweep: str,
    out: str,
    slots: Slots,
    priority: int,
    weight: float,
    *,
    gpus: Iterable[str],
    largest: float,
    on_cluster: bool,
) -> Claim:
    """The claim of a sweep that this process is about to drive; `gpus` are the names of those that it may use.

    A slot has what a trial of the net with the `largest` share of a GPU needs.
    """
    return Claim(
        id=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
        sweep=sweep,
        out=out,
        owner=user_name(),
        host=socket.gethostname(),
        pid=os.getpid(),
        priority=priority,
        weight=weight,
        cores=slots.cpus_per_trial * trials_per_slot(slots, largest),
        gpus=largest,
        since=time.time(),
        all_cores=_core_names(slots, on_cluster=on_cluster),
        all_gpus=frozenset(gpus),
    )


def trials_per_slot(slots: Slots, largest: float) -> int:
    """How many trials of the smallest net a slot for the largest takes."""
    return int(largest / slots.gpus_per_trial + _ROUNDING) if slots.gpus_per_trial else 1


def _core_names(slots: Slots, *, on_cluster: bool) -> frozenset[int]:
    own = range(slots.cpus) if on_cluster or sys.platform == "darwin" else sorted(os.sched_getaffinity(0))
    return frozenset(own[: slots.cpus])  # a container's quota may allow fewer than it shows
