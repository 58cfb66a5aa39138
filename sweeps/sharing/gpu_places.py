"""On which GPUs of this machine each trial of a sweep trains.

Every sweep of the machine has its own Ray, and each Ray would begin with the first GPU. So the driver chooses: a trial
takes its share of a GPU that the sweep has claimed, and its worker sees that GPU alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

_ROUNDING = 1e-6


class GpuPlaces:
    """What a sweep has of each GPU, and what its trials take of that."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.claimed: Mapping[str, float] = dict.fromkeys(self.names, 1.0)
        """What the sweep may use of each; all of them where no other sweep is seen."""
        self._taken: dict[int, dict[str, float]] = {}

    @property
    def used(self) -> dict[str, float]:
        """What trials take of each GPU."""
        used = dict.fromkeys(self.names, 0.0)
        for parts in self._taken.values():
            for name, part in parts.items():
                used[name] += part
        return used

    def take(self, trial: int, share: float) -> tuple[str, ...] | None:
        """The GPUs of a trial that starts: one, or whole ones if `share` is above 1. None where too little is claimed.

        Of several GPUs the fullest is taken.
        """
        self.release(trial)
        used = self.used
        free = {name: self.claimed.get(name, 0.0) - used[name] for name in self.names}
        needed, part = (round(share), 1.0) if share > 1 else (1, share)
        fitting = [name for name in self.names if free[name] > part - _ROUNDING]
        if len(fitting) < needed:
            return None
        chosen = sorted(fitting, key=free.__getitem__)[:needed]
        self._taken[trial] = dict.fromkeys(chosen, part)
        return tuple(chosen)

    def release(self, trial: int) -> None:
        """Free what a trial took, once its worker has left it."""
        self._taken.pop(trial, None)

    def release_all(self) -> None:
        """Free what all trials took, once every worker has ended."""
        self._taken.clear()

    def beyond(self, granted: Mapping[str, float], leaving_first: Callable[[], Iterable[int]]) -> list[int]:
        """The trials that must leave so that each GPU has no more of them than is granted, the first ones rather."""
        excess = {name: used - granted.get(name, 0.0) for name, used in self.used.items()}
        leaving: list[int] = []
        if max(excess.values(), default=0.0) <= _ROUNDING:
            return leaving
        for trial in leaving_first():
            parts = self._taken.get(trial, {})
            if any(excess[name] > _ROUNDING for name in parts):
                leaving.append(trial)
                for name, part in parts.items():
                    excess[name] -= part
        return leaving

    def keep_to(self, names: Iterable[str]) -> None:
        """Take no other GPUs from now on, as a process that has begun to use these."""
        self.names = tuple(names)
