"""Divides slots among sweeps, as a pure function of the running sweeps' claims.

Every driver computes the same division from the same claims, so there is no coordinator.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

_ROUNDING = 1e-9
_STAY = 0.5
"""Bonus for a slot in use, in slots: without it two equal claims would swap slots at every computation."""


@dataclass(frozen=True)
class Capacity:
    """The capacity to be divided."""

    cores: float
    gpus: float = 0.0


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
    owed: float = Field(default=0.0, allow_inf_nan=False)
    """Slot-seconds that it was entitled to but did not have; negative if it had more."""
    since: float = 0.0
    """When it was made, in seconds since 1970: of equal claims the earlier one comes first."""
    all_cores: frozenset[int] = frozenset()
    all_gpus: frozenset[str] = frozenset()
    """Names of the cores and GPUs that its driver may use."""

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
    return Capacity(len(cores), len(gpus))


def is_overfull(claims: Iterable[Claim], capacity: Capacity) -> bool:
    """Whether more is in use than the capacity."""
    free = _free(claims, capacity)
    return free.cores < -_ROUNDING or free.gpus < -_ROUNDING


def divide(claims: Iterable[Claim], capacity: Capacity, quantum_seconds: float) -> dict[str, int]:
    """The number of slots of each claim, by its id: higher priorities first, equal ones in proportion to their weights.

    Slots are assigned one by one to the claim with the fewest for its weight, if it wants more and they fit, so that
    no usable slot is left over. Slots that do not divide evenly rotate: a claim that had too little comes first, by one
    slot per `quantum_seconds`.
    """
    granted, free = {claim.id: 0 for claim in claims}, capacity
    by_urgency = [
        (*_urgency(claim, 0, size, quantum_seconds), claim.id, size, claim)
        for claim in claims
        if claim.wanted and (size := claim.size(capacity)) < math.inf
    ]
    heapq.heapify(by_urgency)
    while by_urgency:
        *_, size, claim = heapq.heappop(by_urgency)
        if not _fits(claim, free):
            continue  # nor later, since free capacity only decreases
        granted[claim.id] += 1
        free = Capacity(free.cores - claim.cores, free.gpus - claim.gpus)
        if (count := granted[claim.id]) < claim.wanted:
            heapq.heappush(by_urgency, (*_urgency(claim, count, size, quantum_seconds), claim.id, size, claim))
    return granted


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
    free = capacity
    for priority in sorted({claim.priority for claim in claims}, reverse=True):
        growing = [claim for claim in claims if claim.priority == priority and claim.size(capacity) < math.inf]
        while growing := [claim for claim in growing if _grows(claim, shares[claim.id], free)]:
            pace = {claim.id: claim.weight / claim.size(capacity) for claim in growing}
            used = Capacity(
                sum(pace[claim.id] * claim.cores for claim in growing),
                sum(pace[claim.id] * claim.gpus for claim in growing),
            )
            times = [(claim.wanted - shares[claim.id]) / pace[claim.id] for claim in growing]
            times += [free.cores / used.cores] if used.cores else []
            times += [free.gpus / used.gpus] if used.gpus else []
            for claim in growing:
                shares[claim.id] += min(times) * pace[claim.id]
            free = Capacity(free.cores - min(times) * used.cores, free.gpus - min(times) * used.gpus)
    return shares


def _grows(claim: Claim, share: float, free: Capacity) -> bool:
    enough = (not claim.cores or free.cores > _ROUNDING) and (not claim.gpus or free.gpus > _ROUNDING)
    return enough and share < claim.wanted - _ROUNDING


def _fits(claim: Claim, free: Capacity) -> bool:
    return claim.cores <= free.cores + _ROUNDING and claim.gpus <= free.gpus + _ROUNDING


def _free(claims: Iterable[Claim], capacity: Capacity) -> Capacity:
    used = list(claims)
    return Capacity(
        capacity.cores - sum(claim.held * claim.cores for claim in used),
        capacity.gpus - sum(claim.held * claim.gpus for claim in used),
    )
