"""Which of several trials are best where more than one objective counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fronts(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """The non-dominated front of each point, 0 the best; `points: [trials, objectives]`, higher is better.

    A point dominates another that is in no objective better, and in one worse. A point with a NaN is in the last front.
    """
    found = np.full(len(points), -1)
    known = np.flatnonzero(~np.isnan(points).any(axis=1))
    # Only an earlier point can dominate a later one.
    left = known[np.lexsort(-points[known].T[::-1])]
    front = 0
    while len(left):
        best: list[int] = []
        for place in left:
            rivals = points[best]
            dominated = (rivals >= points[place]).all(axis=1) & (rivals > points[place]).any(axis=1)
            if not dominated.any():
                best.append(int(place))
        found[best] = front
        left, front = left[found[left] < 0], front + 1
    found[found < 0] = front
    return found


def ranked(points: NDArray[np.float64]) -> list[int]:
    """The places of the points, the best first: by front, within a front those with the most room around them (the
    crowding distance of NSGA-II, Deb et al. 2002). `points` as of `fronts`; of equal ones the first is first.
    """
    front = fronts(points)
    room = np.zeros(len(points))
    for one in range(int(front.max(initial=-1)) + 1):
        members = np.flatnonzero(front == one)
        room[members] = _room(points[members])
    return [int(place) for place in np.lexsort((-room, front))]


def _room(points: NDArray[np.float64]) -> NDArray[np.float64]:
    room = np.zeros(len(points))
    if np.isnan(points).any():
        return room
    for values in points.T:
        order = np.argsort(values, kind="stable")
        extent = values[order[-1]] - values[order[0]]
        if extent > 0:
            room[order[[0, -1]]] = np.inf
            room[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / extent
    return room
