"""Makes the three splits from single images. All faults are reported at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from fer_data.carving import carved, carved_note
from fer_data.class_names import numbered_classes, relabelled
from fer_data.faces import SPLITS, DataError, Flags, GreyLevels, Split
from fer_data.images.resizing import resized, room, rows_of
from fer_data.options import DataOptions
from fer_data.sources.read_faces import ReadFaces, Splits

OFFICIAL_NAME = "FER2013"
"""The name of the official data, whose val and test are called PublicTest and PrivateTest."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "public", "publictest", "dev"),
    "test": ("test", "testing", "private", "privatetest"),
}
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}

_MAX_FAULTS_SHOWN = 5
_MAX_SIZES_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Sample:
    """One image [height, width] of a split, with the source's own label number."""

    split: str
    label: int
    image: GreyLevels


@dataclass(frozen=True)
class ImageFile:
    """An image file that is not read yet. `name` is its name in messages."""

    path: Path
    name: str
    split: str
    label: int


@dataclass
class Faults:
    """The faults of a source: those that may be left out on request, and fatal ones."""

    root: Path
    skippable: list[str] = field(default_factory=list)
    fatal: list[str] = field(default_factory=list)
    squashed: int = 0
    """Number of images that are not square and that `--resize` makes square."""

    def leave_out(self, name: str, what: str) -> None:
        """Add the fault of a file, folder or entry that may be left out; `name` is relative to the source."""
        self.skippable.append(printable(f"{name}: {what}"))

    def check(self, *, skip_bad: bool) -> None:
        """Raise DataError if there are faults: with the first five, fatal ones first, and the number of the others."""
        faults = [*self.fatal, *([] if skip_bad else self.skippable)]
        if not faults:
            return
        way_out = [] if self.fatal else ["fix this, or leave it out: --skip-bad"]
        raise DataError("\n".join([*self._shown(faults), *way_out]))

    def refuse(self, what: str) -> NoReturn:
        """Raise DataError with the reason why nothing can be read, and with the faults that were left out."""
        raise DataError("\n".join([printable(f"{self.root}: {what}"), *self._shown(self.skippable)]))

    def _shown(self, faults: Sequence[str]) -> list[str]:
        lines = [printable(f"{self.root}: {fault}") for fault in faults[:_MAX_FAULTS_SHOWN]]
        more = len(faults) - len(lines)
        return [*lines, f"and {more:,} more"] if more else lines


def printable(name: str) -> str:
    """A file name as text that can be printed and stored, even if its bytes are not UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def given_name(path: Path) -> str:
    """The name of a file or folder as the user gave it, also for `.`; links are not followed."""
    return printable(path.name if path.name not in ("", "..") else path.resolve().name)


def own_name(name: str) -> str:
    """The name of data that a source names itself. "FER2013" is reserved for data that equal the official ones."""
    return f"{name} (not official)" if name == OFFICIAL_NAME else name


def without_contradictions(
    files: Sequence[ImageFile], faults: Faults, what: Callable[[ImageFile, ImageFile], str]
) -> list[ImageFile]:
    """Leave out each file that has two labels, also through a link or a second name: neither can be trusted.

    `what` is the message about a file and an earlier one. It is part of the fingerprint, so it should not change.
    """
    identities = [_identity(file.path) for file in files]
    first: dict[object, ImageFile] = {}
    doubted = set()
    for file, identity in zip(files, identities, strict=True):
        other = first.setdefault(identity, file)
        if other.label != file.label:
            doubted.add(identity)
            faults.leave_out(file.name, what(file, other))
    return [file for file, identity in zip(files, identities, strict=True) if identity not in doubted]


def _identity(path: Path) -> object:
    """The device and inode of a file, which its links share; the path if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def gather(samples: Iterable[Sample], count: int, options: DataOptions, faults: Faults) -> dict[str, Split]:
    """The splits that occur, with their images in the given order, resized if the options require it.

    Args:
        samples: at most `count`, split by split in the order of SPLITS. Their reader adds what it cannot read to
            `faults`.
        count: the number of images for which space is allocated.
        options: `resize`, `resize_method` and `skip_bad` are used.
        faults: those found so far; different image sizes are added to them.

    Raises:
        DataError: all faults at once; or there are no images.
        OSError: the disk has not enough space.
    """
    images: GreyLevels | None = None
    labels: list[int] = []
    sizes: Counter[tuple[int, ...]] = Counter()
    lengths = dict.fromkeys(SPLITS, 0)
    for sample in samples:
        side = options.resize
        faults.squashed += bool(side) and sample.image.shape[0] != sample.image.shape[1]
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
        faults.refuse("no images to read")
    return _sliced(images, labels, lengths)


def three_splits(
    faults: Faults, classes: Sequence[str], given: Collection[str], found: dict[str, Split]
) -> tuple[Splits, tuple[str, ...]]:
    """Train, val and test, with notes if val or test had to be taken from train, and if images were squashed.

    Args:
        faults: those that were left out, and how many images were squashed.
        classes: the class names.
        given: the splits that the source has; these are not taken from train.
        found: the splits that have images.

    Raises:
        DataError: a given split or train has no images, or train is too small to take another split from it.
    """
    empty = [name for name in SPLITS if name not in found and (name in given or name == "train")]
    if empty:
        faults.refuse(f"no {' and no '.join(empty)} images, found {', '.join(found) or 'none'}")
    notes = (
        [f"images that are not square: {faults.squashed:,}; --resize squashes them, so crop the faces first"]
        if faults.squashed
        else []
    )
    lacking = [name for name in SPLITS if name not in found]
    if not lacking:
        return (found["train"], found["val"], found["test"]), tuple(notes)
    made = found | _carve(faults.root, classes, found["train"], lacking)
    why = f"no {' and no '.join(lacking)} split in the source"
    notes.append(carved_note(why, len(found["train"]), [(name, len(made[name])) for name in lacking]))
    return (made["train"], made["val"], made["test"]), tuple(notes)


def numbered_faces(faults: Faults, given: Collection[str], found: dict[str, Split]) -> ReadFaces:
    """The faces of a source whose labels are only numbers; arguments and errors as of `three_splits`."""
    classes = numbered_classes(faults.root, {label for split in found.values() for label in split.labels.tolist()})
    splits, notes = three_splits(faults, classes.names, given, relabelled(found, classes.label_of))
    name, left_out = own_name(given_name(faults.root)), tuple(faults.skippable)
    return ReadFaces(name, classes.names, splits, (*classes.notes, *notes), left_out)


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


def _carve(root: Path, classes: Sequence[str], train: Split, lacking: Sequence[str]) -> dict[str, Split]:
    """Divide train into train and the missing splits; each must have images of each class."""
    part = carved(train.images, train.labels, len(lacking))
    made = {name: _part(train, name, part == number) for number, name in enumerate(("train", *lacking))}
    present = set(train.labels.tolist())
    everywhere = present.intersection(*(split.labels.tolist() for split in made.values()))
    short = [classes[label] for label in sorted(present - everywhere)]
    if short:
        raise DataError(
            f"{root}: no {' and no '.join(lacking)} images, and too few different train images of "
            f"{', '.join(short)} to take some from: add images of each class"
        )
    return made


def _part(split: Split, name: str, wanted: Flags) -> Split:
    rows = np.flatnonzero(wanted)
    return Split(name, rows_of(split.images, rows), split.labels[rows])
