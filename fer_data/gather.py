"""From single images, wherever they stand, to the three splits; what is wrong with them is told all at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer_data.faces import SPLITS, DataError, Flags, GreyLevels, Split
from fer_data.leaks import picture_numbers
from fer_data.options import DataOptions
from fer_data.read_faces import Splits
from fer_data.resizing import resized, room
from fer_data.stratify import grouped_folds

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "public", "publictest", "dev"),
    "test": ("test", "testing", "private", "privatetest"),
}
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}

_MAX_FAULTS_SHOWN = 5
_MAX_SIZES_SHOWN = 4
_CARVED = 10  # one in so many train images becomes val where a source has no val
_CARVING_SEED = 0
_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True, eq=False)
class Sample:
    """One image [height, width] of a split, and its label as the source numbers it."""

    split: str
    label: int
    image: GreyLevels


@dataclass
class Faults:
    """What is wrong with a source: what can be left out on request, and what cannot."""

    root: Path
    skippable: list[str] = field(default_factory=list)
    fatal: list[str] = field(default_factory=list)

    def leave_out(self, name: str, what: str) -> None:
        """Note a file, folder or entry that can be done without, named relative to the source."""
        self.skippable.append(printable(f"{name}: {what}"))

    def check(self, *, skip_bad: bool) -> None:
        """Raise DataError if anything is in the way: the first five, the fatal before the others, and how many more."""
        faults = [*self.fatal, *([] if skip_bad else self.skippable)]
        if not faults:
            return
        lines = [printable(f"{self.root}: {fault}") for fault in faults[:_MAX_FAULTS_SHOWN]]
        if len(faults) > len(lines):
            lines.append(f"and {len(faults) - len(lines):,} more")
        if not self.fatal:
            lines.append("mend this, or go on without it: --skip-bad")
        raise DataError("\n".join(lines))


def printable(name: str) -> str:
    """Return a file's name as text that can be shown and stored, even where its bytes are no UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def source_name(root: Path) -> str:
    """Return what a folder is called, also where it was given as `.`."""
    return printable(root.resolve().name)


def gather(samples: Iterable[Sample], count: int, options: DataOptions, faults: Faults) -> dict[str, Split]:
    """Return the splits that occur, with their images in the order given; resized if the options say so.

    Args:
        samples: at most `count` of them, split by split in the order of SPLITS; whoever makes them notes in
            `faults` what it could not read.
        count: for how many images room is made.
        options: `resize`, `resize_method` and `skip_bad` count here.
        faults: those known before; images of different sizes are added to them.

    Raises:
        DataError: all faults at once, or that there are no images.
        OSError: the disk has no room for so many images.
    """
    images: GreyLevels | None = None
    labels: list[int] = []
    sizes: Counter[tuple[int, ...]] = Counter()
    lengths = dict.fromkeys(SPLITS, 0)
    for sample in samples:
        side = options.resize
        image = resized(sample.image, side, options.resize_method) if side else sample.image
        sizes[image.shape] += 1
        if images is None:
            images = room(count, *image.shape)
        if image.shape == images.shape[1:]:
            images[len(labels)] = image
            labels.append(sample.label)
            lengths[sample.split] += 1
    if len(sizes) > 1:
        faults.fatal.append(_different_sizes(sizes))
    faults.check(skip_bad=options.skip_bad)
    if images is None:
        raise DataError(f"{faults.root}: no images to read")
    return _sliced(images, labels, lengths)


def three_splits(root: Path, classes: Sequence[str], found: dict[str, Split]) -> tuple[Splits, tuple[str, ...]]:
    """Return train, val and test, and a note where val had to be taken from train.

    Raises:
        DataError: train or test is missing, or train is too small to take val from.
    """
    missing = [name for name in ("train", "test") if name not in found]
    if missing:
        way_out = "; rename val to test, and a tenth of train becomes val" if missing == ["test"] else ""
        raise DataError(f"{root}: no {' and no '.join(missing)} images, found {', '.join(found) or 'none'}{way_out}")
    if "val" in found:
        return (found["train"], found["val"], found["test"]), ()
    train, val = _carve(root, classes, found["train"])
    note = (
        f"no val split in the source: {len(val):,} of {len(found['train']):,} train images are val "
        f"(a tenth of each class, copies of a picture together, seed {_CARVING_SEED})"
    )
    return (train, val, found["test"]), (note,)


def _different_sizes(sizes: Counter[tuple[int, ...]]) -> str:
    shown = [f"{width}×{height} ({number:,})" for (height, width), number in sizes.most_common(_MAX_SIZES_SHOWN)]
    more = f" and {len(sizes) - len(shown):,} more sizes" if len(sizes) > len(shown) else ""
    return f"images of different sizes: {', '.join(shown)}{more}; make them one with --resize 48"


def _sliced(images: GreyLevels, labels: Sequence[int], lengths: dict[str, int]) -> dict[str, Split]:
    splits, start, all_labels = {}, 0, np.array(labels, dtype=np.uint8)
    for name, length in lengths.items():
        if length:
            splits[name] = Split(name, images[start : start + length], all_labels[start : start + length])
        start += length
    return splits


def _carve(root: Path, classes: Sequence[str], train: Split) -> tuple[Split, Split]:
    """Divide train into train and val, a tenth of each class; images of equal pixels stay together."""
    (pictures,) = picture_numbers(train.images)
    folds = grouped_folds(train.labels, pictures, _CARVED, np.random.default_rng(_CARVING_SEED))
    rest, val = _part(train, "train", folds != 0), _part(train, "val", folds == 0)
    in_both = set(rest.labels.tolist()) & set(val.labels.tolist())
    short = [classes[label] for label in sorted(set(train.labels.tolist()) - in_both)]
    if short:
        raise DataError(
            f"{root}: no val images, and too few different train images of {', '.join(short)} to take some from: "
            "add val images of each class"
        )
    return rest, val


def _part(split: Split, name: str, wanted: Flags) -> Split:
    """Copy the wanted rows a block at a time: a large split is a file, and stays one."""
    rows = np.flatnonzero(wanted)
    images = room(len(rows), *split.images.shape[1:])
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        block = slice(start, start + _ROWS_AT_A_TIME)
        images[block] = split.images[rows[block]]
    return Split(name, images, split.labels[rows])
