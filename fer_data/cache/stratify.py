"""Random choices that keep the proportions of the classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fer_data.faces import Labels

Indices = NDArray[np.intp]


def stratified_choice(labels: Labels, n: int, rng: np.random.Generator) -> Indices:
    """n sorted indices: one of each class that is present, the rest in proportion (largest remainder)."""
    counts = np.bincount(labels)
    spare = np.maximum(counts - 1, 0)
    rest = n - np.count_nonzero(counts)
    share = rest * spare / max(spare.sum(), 1)
    quota = np.floor(share).astype(np.intp)
    largest_remainders = np.argsort(quota - share, kind="stable")[: rest - quota.sum()]
    quota[largest_remainders] += 1
    quota += counts > 0
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:take] for label, take in enumerate(quota)]
    return np.sort(np.concatenate(chosen))


def grouped_folds(labels: Labels, groups: Indices, n: int, rng: np.random.Generator) -> Indices:
    """The fold 0..n-1 of each image. A group is never divided, and each class is distributed evenly.

    Groups are assigned in random order, the largest first. Each goes to the fold with the fewest images of its class
    (that of its first image), and among equal ones to the smallest fold.

    Args:
        labels: [images] classes.
        groups: [images] numbers 0..groups-1, each of which occurs.
        n: number of folds.
        rng: determines the order.
    """
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    of_class = [[0] * n for _ in range(int(labels.max(initial=0)) + 1)]
    in_all = [0] * n
    fold_of = np.empty(len(sizes), np.intp)
    for group, label, size in zip(order.tolist(), labels[first[order]].tolist(), sizes[order].tolist(), strict=True):
        held = of_class[label]
        fold = min(range(n), key=lambda number, held=held: (held[number], in_all[number]))  # type: ignore[misc]
        held[fold] += size
        in_all[fold] += size
        fold_of[group] = fold
    return fold_of[groups]
