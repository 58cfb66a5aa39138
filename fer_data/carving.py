"""Takes missing splits from the train split, deterministically."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_data.cache.leaks import picture_numbers
from fer_data.cache.stratify import Indices, grouped_folds
from fer_data.faces import Images, Labels

_TENTHS = 10
_SEED = 0


def carved(images: Images, labels: Labels, lacking: int) -> Indices:
    """For each train image [n]: 0 if it stays in train, k if it goes to the k-th missing split.

    Each missing split gets a tenth of each class; copies of an image stay together.
    """
    (pictures,) = picture_numbers(images)
    tenth = grouped_folds(labels, pictures, _TENTHS, np.random.default_rng(_SEED))
    return np.where(tenth < lacking, tenth + 1, 0)


def carved_note(why: str, total: int, sizes: Sequence[tuple[str, int]]) -> str:
    """A note: which splits, with how many images each, were taken from `total` train images, and why."""
    taken = f" and {sizes[-1][1]:,} are {sizes[-1][0]}" if len(sizes) > 1 else ""
    name, count = sizes[0]
    return (
        f"{why}: {count:,} of {total:,} train images are {name}{taken} "
        f"(a tenth of each class, copies of a picture together, seed {_SEED})"
    )
