"""Divides slots among sweeps, as a pure function of the running sweeps' claims.

Every driver computes the same division from the same claims, so there is no coordinator.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

_ROUNDING = 1e-9
_STAY = 0.5
"""Bonus for a slot in use, in slots: without it two equal claims would swap slots at every computation."""


@dataclass(frozen=True)
class Capacity:
    """The capacity to be divided: cores, and the names of the GPUs."""

    cores: float
    names: frozenset[str] = frozenset()

    @property
    def gpus(self) -> float:
        """How many GPUs."""
        return float(len(self.names))


class Claim(BaseModel):
    """The slots that one running sweep could use and uses. Drivers of other versions may write more fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    sweep: str
    out: str = ""
    owner: str = ""
    host: str = ""
    pid: int = 0
    priority: int = 0
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    cores: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of one slot."""
    gpus: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Of one slot."""
    wanted: int = Field(default=0, ge=0)
    """Number of slots that it could use now."""
    held: int = Field(default=0, ge=0)
    """Number of slots that its trials use now."""
    on: dict[str, float] = {}
    """The share of each GPU, by name, that these slots have; empty if Ray chooses the GPUs, as on a cluster."""
    owed: float = Field(default=0.0, allow_inf_nan=False)
    """Slot-seconds that it was entitled to but did not have; negative if it had more."""
    since: float = 0.0
    """When it was made, in seconds since 1970: of equal claims the earlier one comes first."""
    all_cores: frozenset[int] = frozenset()
    all_gpus: frozenset[str] = frozenset()
    """Names of the cores and GPUs that its driver may use."""

    @property
    def parts(self) -> tuple[float, ...]:
        """What one slot takes of each of its GPUs: a share of one, or whole ones."""
        return (1.0,) * round(self.gpus) if self.gpus > 1 else (self.gpus,) * (self.gpus > 0)

    def size(self, capacity: Capacity) -> float:
        """The share of the scarcest resource that one slot takes; infinite if no slot fits."""
        parts = [
            need / whole if whole else math.inf
            for need, whole in ((self.cores, capacity.cores), (self.gpus, capacity.gpus))
            if need
        ]
        largest = max(parts, default=math.inf)
        return largest if largest <= 1 + _ROUNDING else math.inf


def capacity_of(claims: Iterable[Claim]) -> Capacity:
    """The capacity of all drivers together; each driver may be limited to some cores or GPUs."""
    seen = list(claims)
    cores = frozenset[int]().union(*(claim.all_cores for claim in seen))
    gpus = frozenset[str]().union(*(claim.all_gpus for claim in seen))
    return Capacity(len(cores), gpus)


def is_overfull(claims: Iterable[Claim], capacity: Capacity) -> bool:
    """Whether more is in use than there is: of the cores, of all GPUs, or of one of them."""
    used = list(claims)
    gpus = sum(claim.held * claim.gpus for claim in used)
    cores = sum(claim.held * claim.cores for claim in used)
    fullest = max(used_on(used).values(), default=0.0)
    return cores > capacity.cores + _ROUNDING or gpus > capacity.gpus + _ROUNDING or fullest > 1 + _ROUNDING


def used_on(claims: Iterable[Claim]) -> dict[str, float]:
    """What the claims have of each GPU, by name."""
    used: Counter[str] = Counter()
    for claim in claims:
        used.update(claim.on)
    return dict(used)


@dataclass
class Grant:
    """What a claim may have: slots, and how much of which GPUs they are on."""

    slots: int = 0
    on: dict[str, float] = field(default_factory=dict)


def divide(claims: Iterable[Claim], capacity: Capacity, quantum_seconds: float) -> dict[str, int]:
    """The slots of each claim, as `grants`."""
    return {name: grant.slots for name, grant in grants(list(claims), capacity, quantum_seconds).items()}


def grants(claims: Sequence[Claim], capacity: Capacity, quantum_seconds: float) -> dict[str, Grant]:
    """What each claim may have, by its id. Higher priorities first; among equals in proportion to their weights.

    Slots are assigned one by one to the claim with the fewest for its weight, if it wants more and they fit, so that
    no usable slot is left over. Slots that do not divide evenly rotate: a claim that had too little comes first, by one
    slot per `quantum_seconds`. Each slot is on one GPU, or on whole ones.
    """
    granted, free = {claim.id: Grant() for claim in claims}, Room(capacity, claims)
    by_urgency = [
        (*_urgency(claim, 0, size, quantum_seconds), claim.id, size, claim)
        for claim in claims
        if claim.wanted and (size := claim.size(capacity)) < math.inf
    ]
    heapq.heapify(by_urgency)
    while by_urgency:
        *_, size, claim = heapq.heappop(by_urgency)
        grant = granted[claim.id]
        gpus = free.place(claim, grant.on)
        if gpus is None:
            continue  # nor later, since free capacity only decreases
        grant.slots += 1
        for gpu, part in zip(gpus, claim.parts, strict=True):
            grant.on[gpu] = grant.on.get(gpu, 0.0) + part
        if (count := grant.slots) < claim.wanted:
            heapq.heappush(by_urgency, (*_urgency(claim, count, size, quantum_seconds), claim.id, size, claim))
    return granted


class Room:
    """What is still free while slots are assigned."""

    def __init__(self, capacity: Capacity, claims: Sequence[Claim]) -> None:
        self._cores = capacity.cores
        self._gpus = dict.fromkeys(capacity.names, 1.0)
        self._used = used_on(claims)

    def place(self, claim: Claim, on: Mapping[str, float]) -> list[str] | None:
        """Take a slot's cores and GPUs; None if they are not free. `on` is what the claim was assigned before.

        A slot stays on a GPU on which the claim has a slot now. Otherwise a GPU is preferred on which it displaces no
        slot of others, and of these the one with the least room.
        """
        if claim.cores > self._cores + _ROUNDING:
            return None
        needed, least = len(claim.parts), max(claim.parts, default=0.0)
        open_to = self._gpus.keys() & (claim.all_gpus or self._gpus.keys())
        fitting = [name for name in open_to if self._gpus[name] > least - _ROUNDING]
        if len(fitting) < needed:
            return None

        def rank(name: str) -> tuple[bool, bool, float, str]:
            own = claim.on.get(name, 0.0)
            stays = own - on.get(name, 0.0) > least - _ROUNDING
            displaces = self._used.get(name, 0.0) - own + on.get(name, 0.0) + least > 1 + _ROUNDING
            return not stays, displaces, self._gpus[name], name

        chosen = sorted(fitting, key=rank)[:needed] if needed else []
        for name in chosen:
            self._gpus[name] -= least
        self._cores -= claim.cores
        return chosen


def _urgency(claim: Claim, count: int, size: float, quantum_seconds: float) -> tuple[float, float, float]:
    """Sort key of a claim for its slot after `count`; the lowest comes first."""
    kept = _STAY if count < claim.held else 0.0
    has = (count + 0.5 - claim.owed / quantum_seconds - kept) * size / claim.weight
    return -claim.priority, has, claim.since


def entitled(claims: Iterable[Claim], capacity: Capacity) -> Mapping[str, float]:
    """The fractional share of each claim in slots: the mean of `divide` over time.

    All claims of a priority grow together, in proportion to their weights, until each has what it wants or a
    resource that it needs is used up (weighted dominant-resource fairness).
    """
    shares = {claim.id: 0.0 for claim in claims}
    free = _Free(capacity.cores, capacity.gpus)
    for priority in sorted({claim.priority for claim in claims}, reverse=True):
        growing = [claim for claim in claims if claim.priority == priority and claim.size(capacity) < math.inf]
        while growing := [claim for claim in growing if _grows(claim, shares[claim.id], free)]:
            pace = {claim.id: claim.weight / claim.size(capacity) for claim in growing}
            used = _Free(
                sum(pace[claim.id] * claim.cores for claim in growing),
                sum(pace[claim.id] * claim.gpus for claim in growing),
            )
            times = [(claim.wanted - shares[claim.id]) / pace[claim.id] for claim in growing]
            times += [free.cores / used.cores] if used.cores else []
            times += [free.gpus / used.gpus] if used.gpus else []
            for claim in growing:
                shares[claim.id] += min(times) * pace[claim.id]
            free = _Free(free.cores - min(times) * used.cores, free.gpus - min(times) * used.gpus)
    return shares


class _Free(NamedTuple):
    cores: float
    gpus: float


def _grows(claim: Claim, share: float, free: _Free) -> bool:
    enough = (not claim.cores or free.cores > _ROUNDING) and (not claim.gpus or free.gpus > _ROUNDING)
    return enough and share < claim.wanted - _ROUNDING
