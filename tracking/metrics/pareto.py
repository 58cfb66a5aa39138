"""Ranks trials by several objectives. Legend: n trials, k objectives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Merit = tuple[float, ...]
"""A trial's objectives, all to be minimised: the negative of its accuracy, then its costs."""


def fronts(points: NDArray[np.float64], enough: int | None = None) -> NDArray[np.int64]:
    """The index of each point's non-dominated front, 0 for the best; `points: [n, k]`, higher is better.

    A point dominates another if it is at least as good in all objectives and better in one. Points that are not finite,
    and those after the first `enough`, are in the last front.
    """
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    found = np.full(len(distinct), -1)
    left = np.flatnonzero(np.isfinite(distinct).all(axis=1))[::-1]  # only earlier points can dominate
    sizes = np.bincount(inverse.ravel(), minlength=len(distinct))
    front = counted = 0
    while len(left) and (enough is None or counted < enough):
        best = _undominated(distinct[left])
        found[left[best]] = front
        counted += int(sizes[left[best]].sum())
        left, front = left[~best], front + 1
    found[found < 0] = front
    result: NDArray[np.int64] = found[inverse.ravel()]
    return result


def _undominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of distinct points, sorted by the first objective in descending order, are not dominated by another."""
    if points.shape[1] == 2:
        highest = np.maximum.accumulate(points[:, 1])
        return np.concatenate([[True], points[1:, 1] > highest[:-1]])
    best = np.zeros(len(points), bool)
    for place, point in enumerate(points):
        best[place] = not (points[:place][best[:place]] >= point).all(axis=1).any()
    return best


def ranked(points: NDArray[np.float64], enough: int | None = None) -> list[int]:
    """The indices of the points, best first: by front, then by crowding distance (NSGA-II, Deb et al. 2002).

    `points` as in `fronts`; equal points keep their order.
    """
    front = fronts(points, enough)
    room = np.zeros(len(points))
    for one in range(int(front.max(initial=-1)) + 1):
        members = np.flatnonzero(front == one)
        if np.isfinite(points[members]).all():
            room[members] = _room(points[members])
    return [int(place) for place in np.lexsort((-room, front))]


def best_first(merits: Sequence[Merit]) -> Sequence[int]:
    """The indices of sorted merits, best first. With one objective they are already in this order."""
    if not merits or len(merits[0]) == 1:
        return range(len(merits))
    return ranked(-np.array(merits))


def hypervolume(points: NDArray[np.float64]) -> float:
    """The share of the unit cube that the points dominate; `points: [n, k]` in 0..1, lower is better.

    The cube is divided at the last objective's values; two objectives are summed as steps.
    """
    points = points[(points < 1).all(axis=1)]
    if not len(points):
        return 0.0
    points = points[np.argsort(points[:, -1], kind="stable")]
    if points.shape[1] == 1:
        return float(1 - points[0, 0])
    depths = np.diff(np.append(points[:, -1], 1.0))
    if points.shape[1] == 2:
        return float((depths * (1 - np.minimum.accumulate(points[:, 0]))).sum())
    slices = (depth * hypervolume(points[: place + 1, :-1]) for place, depth in enumerate(depths) if depth > 0)
    return float(sum(slices))


def _room(points: NDArray[np.float64]) -> NDArray[np.float64]:
    room = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        extent = values[order[-1]] - values[order[0]]
        if extent > 0:
            room[order[[0, -1]]] = np.inf
            room[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / extent
    return room
