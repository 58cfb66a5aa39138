"""Reads FER2013's csv in each of its forms, and reports differences from the official data.

fer2013.csv and icml_face_data.csv have the columns emotion, pixels and Usage, which names the split. Kaggle's train.csv
has no Usage: all its rows are train at first. If there are no rows of val or test, a stratified tenth of train is used
for each.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_common.errors import nearest
from fer_data.carving import carved, carved_note
from fer_data.faces import (
    EXPRESSIONS,
    SPLITS,
    DataError,
    Flags,
    GreyLevels,
    Labels,
    SoftLabels,
    Split,
    fingerprint_of,
)
from fer_data.images.resizing import all_resized
from fer_data.options import DataOptions, ResizeMethod
from fer_data.sources import ferplus
from fer_data.sources.compressed import Text, opened
from fer_data.sources.csv_arrow import read_rows
from fer_data.sources.csv_rows import SIDE, USAGES, Header, Rows, fields_of
from fer_data.sources.gather import OFFICIAL_NAME, given_name, own_name
from fer_data.sources.read_faces import ReadFaces, Splits

# Goodfellow et al. 2013 (arXiv:1307.0414): the challenge's split, Angry..Neutral.
OFFICIAL_COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "val": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}
OFFICIAL_FINGERPRINT = "d08d528a446e9c70"

_COLUMNS = ("emotion", "pixels", "Usage")
_MAX_HEADER_BYTES = 65_536
_LEFT_OUT_SHOWN = 5
_ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def read_csv(path: Path, options: DataOptions) -> ReadFaces:
    """Read FER2013's csv, plain or packed, into train (Training), val (PublicTest) and test (PrivateTest).

    Columns may be in any order, and others are ignored. A byte order mark, CRLF, blank lines and spaces around names
    and values are accepted. With `labels="ferplus-soft"` train and val have soft labels.

    Raises:
        DataError: the file cannot be read or is not in FER2013's format, with the first five faulty lines (the header
            is line 1); or FER+'s file does not fit.
    """
    rows = read_rows_of(path, skip_bad=options.skip_bad)
    usages, lacking = _with_every_split(path, rows)
    splits = _splits(path, rows.pixels, rows.emotions, usages)
    notes = (_carved_note(rows, splits, lacking),) if lacking else differences_from_official(splits)
    notes += _absent_note(rows)
    read = ReadFaces(_name(path) if notes else OFFICIAL_NAME, EXPRESSIONS, splits, notes, rows.left_out)
    if options.ferplus is not None:
        read = _with_ferplus(read, path, rows, usages, options)
    return read if options.resize is None else _resized(read, options.resize, options.resize_method)


def read_rows_of(path: Path, *, skip_bad: bool = True) -> Rows:
    """Read the rows of a csv, plain or packed, of all splits. Raises DataError as `read_csv` does."""
    try:
        with opened(path) as text:
            return read_rows(text, _read_header(text), skip_bad=skip_bad)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error


def differences_from_official(splits: Splits) -> tuple[str, ...]:
    """How these splits differ from the official FER2013, in words; empty if they do not."""
    differing = [
        f"{split.name} {expression} {count:,} (official {official:,})"
        for split in splits
        for expression, count, official in zip(
            EXPRESSIONS, split.counts(len(EXPRESSIONS)), OFFICIAL_COUNTS[split.name], strict=True
        )
        if count != official
    ]
    if differing:
        return ("class counts differ from the official FER2013: " + ", ".join(differing),)
    if fingerprint_of(splits) == OFFICIAL_FINGERPRINT:
        return ()
    return ("class counts are the official FER2013's, but pixels or the order of rows differ",)


def _with_every_split(path: Path, rows: Rows) -> tuple[Labels, list[int]]:
    """The usage of each row, with val and test taken from train if they are missing, and which were taken.

    Raises:
        DataError: rows that were left out belong, or may belong, to a missing split.
    """
    usages = np.zeros(len(rows.emotions), np.uint8) if rows.usages is None else rows.usages
    lacking = [number for number in (1, 2) if not np.any(usages == number)]
    if not lacking:
        return usages, []
    _refuse_doubted(path, rows, [USAGES[number] for number in lacking])
    train, usages = usages == 0, usages.copy()
    part = carved(rows.pixels[train], rows.emotions[train], len(lacking))
    usages[train] = np.array([0, *lacking], np.uint8)[part]
    return usages, lacking


def _refuse_doubted(path: Path, rows: Rows, lacking: Sequence[str]) -> None:
    """Refuse to take a split from train if its own rows may be among those that were left out."""
    known = {usage for usage in USAGES if usage not in lacking}
    if rows.usages_left_out - known:
        shown = "\n".join(f"{path}: {line}" for line in rows.left_out[:_LEFT_OUT_SHOWN])
        raise DataError(f"{path}: no sound rows with Usage={', '.join(lacking)}; left out were\n{shown}")


def _carved_note(rows: Rows, splits: Splits, lacking: Sequence[int]) -> str:
    absent = " and no ".join(f"rows with Usage={USAGES[number]}" for number in lacking)
    why = "no Usage column" if rows.usages is None else f"no {absent}"
    total = len(splits[0]) + sum(len(splits[number]) for number in lacking)
    note = carved_note(why, total, [(splits[number].name, len(splits[number])) for number in lacking])
    return f"{note}, so numbers do not compare with those of the official split"


def _absent_note(rows: Rows) -> tuple[str, ...]:
    """A note if expressions have no image; if only the first has none, that labels may count from 1."""
    found = set(rows.emotions.tolist())
    absent = [name for number, name in enumerate(EXPRESSIONS) if number not in found]
    if absent != [EXPRESSIONS[0]]:
        return (f"no image of {', '.join(absent)}; choose the others with --classes",) if absent else ()
    return (f"no row has emotion 0 ({EXPRESSIONS[0]}): if the labels count from 1, all are read one class off",)


def _splits(path: Path, pixels: GreyLevels, labels: Labels, usages: Labels, soft: SoftLabels | None = None) -> Splits:
    empty = [usage for number, usage in enumerate(USAGES) if not np.any(usages == number)]
    if empty:
        raise DataError(
            f"{path}: no rows with Usage={', '.join(empty)}; Training is needed, and enough different images in it "
            "where the others are to be taken from it"
        )
    train, val, test = (_split(name, pixels, labels, usages == number, soft) for number, name in enumerate(SPLITS))
    return train, val, replace(test, soft_labels=None)


def _split(name: str, pixels: GreyLevels, labels: Labels, wanted: Flags, soft: SoftLabels | None) -> Split:
    rows: slice | Flags = wanted
    first, last = np.flatnonzero(wanted)[[0, -1]]
    if wanted[first : last + 1].all():  # as in the official order: a slice needs no copy
        rows = slice(int(first), int(last) + 1)
    return Split(name, pixels[rows].reshape(-1, SIDE, SIDE), labels[rows], None if soft is None else soft[rows])


def _with_ferplus(read: ReadFaces, path: Path, rows: Rows, usages: Labels, options: DataOptions) -> ReadFaces:
    majority = options.labels == "ferplus-majority"
    verdict = ferplus.judge(Path(str(options.ferplus)), rows, majority=majority)
    kept = verdict.kept
    soft = verdict.soft_labels[kept] if options.labels == "ferplus-soft" else None
    splits = _splits(path, rows.pixels[kept], verdict.labels[kept], usages[kept], soft)
    dropped = ", ".join(f"{len(old) - len(new):,} {new.name}" for old, new in zip(read.splits, splits, strict=True))
    rule = "majority" if majority else "plurality"
    note = (
        f"labels are the {rule} of FER+'s votes{'' if soft is None else ', in training all its votes'}; images "
        f"{'without one, or ' if majority else ''}whose {rule} is contempt, unknown or no face, are dropped ({dropped})"
    )
    kind = "FER+ majority labels" if majority else "FER+ labels"
    return replace(read, name=f"{read.name} with {kind}", splits=splits, notes=(*read.notes, note))


def _resized(read: ReadFaces, side: int, method: ResizeMethod) -> ReadFaces:
    train, val, test = (replace(split, images=all_resized(split.images, side, method)) for split in read.splits)
    note = f"images resized from {SIDE}×{SIDE} to {side}×{side} ({method})"
    return replace(read, splits=(train, val, test), notes=read.notes if side == SIDE else (*read.notes, note))


def _name(path: Path) -> str:
    name = given_name(path)
    for suffix in (".tgz", ".gz", ".xz", ".zip", ".tar", ".csv"):
        name = name.removesuffix(suffix)
    return own_name(name or given_name(path))


def _read_header(text: Text) -> Header:
    raw = text.file.readline(_MAX_HEADER_BYTES)
    for magic, kind in _ARCHIVES.items():
        if raw.startswith(magic):
            raise DataError(f"{text.shown}: not a csv: it is a {kind} archive; unpack it first")
    if b"\0" in raw:
        raise DataError(f"{text.shown}: not a csv: it begins with binary data; save it as UTF-8 text")
    if not raw.strip():
        raise DataError(f"{text.shown}: is empty; expected a csv with the columns {', '.join(_COLUMNS)}")
    try:
        names = fields_of(raw.decode("utf-8-sig", errors="replace").partition("\r")[0])
    except csv.Error as error:
        raise DataError(f"{text.shown}:1: {error}; expected the columns {', '.join(_COLUMNS)}") from error
    _check_columns(text.shown, names)
    return Header(tuple(names))


def _check_columns(shown: str, names: Sequence[str]) -> None:
    """Refuse a header without emotion or pixels, or with a misspelt Usage."""
    hint = {name: nearest(name, [other for other in names if other not in _COLUMNS]) for name in _COLUMNS}
    if "pixels" in names and "emotion" not in names and not hint["emotion"]:
        raise DataError(
            f"{shown}:1: no column emotion: these faces have no labels (as in Kaggle's test.csv); "
            "use fer2013.csv, icml_face_data.csv or train.csv"
        )
    missing = [name for name in _COLUMNS if name not in names]
    twice = [name for name in _COLUMNS if list(names).count(name) > 1]
    if missing == ["Usage"] and not hint["Usage"] and not twice:
        return
    if missing or twice:
        hints = [f"{name} is missing{hint[name]}" for name in missing]
        hints += [f"{name} is given twice" for name in twice]
        found = _short(", ".join(names))
        raise DataError(f"{shown}:1: expected the columns {', '.join(_COLUMNS)}; found {found}; {'; '.join(hints)}")


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."
