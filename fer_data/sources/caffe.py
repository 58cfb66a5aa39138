"""Caffe's index lists train.txt, val.txt and test.txt: one line per image, path and label, as "0/00111.jpg 0"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from fer_data.faces import SPLITS, DataError
from fer_data.images.decode import read_image
from fer_data.options import DataOptions
from fer_data.sources.gather import (
    SPLIT_OF,
    Faults,
    ImageFile,
    Sample,
    gather,
    numbered_faces,
    printable,
    without_contradictions,
)
from fer_data.sources.read_faces import ReadFaces

_MAX_LABEL = 255


def index_lists(folder: Path) -> dict[str, Path]:
    """The index list of each split in a folder, in the order train, val, test.

    Raises:
        DataError: there are two lists for one split.
        OSError: the folder cannot be read.
    """
    lists: dict[str, Path] = {}
    for path in sorted(folder.glob("*.txt")):
        split = SPLIT_OF.get(path.stem.casefold())
        if split in lists:
            raise DataError(f"{folder}: {lists[split].name} and {path.name} both list {split}; remove one")
        if split:
            lists[split] = path
    return {split: lists[split] for split in SPLITS if split in lists}


def index_line(path: str, label: int) -> str:
    """A line of an index list in the format of Caffe's convert_imageset."""
    return f"{path} {label}\n"


def read_caffe(path: Path, options: DataOptions) -> ReadFaces:
    """Read the images that a folder's index lists name, in their order.

    Paths are relative to the folder of the split (train/ beside train.txt) or to that of the lists, and must be inside
    it. Class names come from a classes.txt beside the lists; without it 0..6 are FER's expressions.

    Raises:
        DataError: train is missing; or lines are malformed, or images are missing, unreadable, of different sizes or
            listed with two labels. All faults at once, except those that `options.skip_bad` leaves out.
        OSError: there is no space for the images.
    """
    faults = Faults(path)
    lists = index_lists(path)
    entries = [entry for split, index in lists.items() for entry in _entries(path, split, index, faults)]
    entries = without_contradictions(
        entries, faults, lambda one, other: f"label {one.label}, but {other.name} gives the same file {other.label}"
    )
    found = gather(_samples(entries, faults), len(entries), options, faults)
    return numbered_faces(faults, lists, found)


def _entries(root: Path, split: str, index: Path, faults: Faults) -> Iterator[ImageFile]:
    try:
        lines = index.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        faults.fatal.append(f"{index.name}: cannot be read: {error.strerror}")
        return
    folder = root / index.stem if (root / index.stem).is_dir() else root
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{index.name}:{number}"
        *before, label = line.strip().rsplit(maxsplit=1)
        listed = "".join(before)
        fault = _fault(listed, label)
        if fault:
            faults.leave_out(where, fault)
            continue
        in_split = folder / listed
        yield ImageFile(in_split if in_split.exists() else root / listed, where, split, int(label))


def _fault(listed: str, label: str) -> str:
    """The fault of a line, or an empty text."""
    if not listed:
        return "expected a path and a label, as '0/00111.jpg 0'"
    if not (label.isascii() and label.isdigit() and int(label) <= _MAX_LABEL):
        return f"label '{label[:20]}', expected a number 0..{_MAX_LABEL}"
    if PurePosixPath(listed).is_absolute() or ".." in PurePosixPath(listed).parts:
        return f"'{listed}' leads out of the folder; paths are relative and go down only"
    return ""


def _samples(entries: Sequence[ImageFile], faults: Faults) -> Iterator[Sample]:
    for entry in entries:
        try:
            yield Sample(entry.split, entry.label, read_image(entry.path))
        except DataError as error:
            shown = printable(str(entry.path.relative_to(faults.root)))
            faults.leave_out(f"{entry.name}: {shown}", str(error))
