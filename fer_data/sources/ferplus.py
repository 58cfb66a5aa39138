"""FER+: the votes of ten people on each image of FER2013 (Barsoum et al. 2016, arXiv:1608.01041).

Votes become labels by one of two rules. The plurality is the label with the most votes. The majority is the rule of
FER+'s program in its mode "majority": single votes are removed as outliers, and a label needs more than half of the
remaining votes. The plurality keeps 28,224 images of train, 3,529 of val and 3,519 of test, the majority 24,941, 3,186
and 3,137.

Its fer2013new.csv has one row for each row of FER2013, in the same order. Rows are joined by position, not by the image
names in the file: some are missing, and some occur twice.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fer_common.errors import nearest
from fer_data.faces import EXPRESSIONS, DataError, Flags, Labels, SoftLabels
from fer_data.sources.compressed import Text, opened
from fer_data.sources.csv_rows import USAGES, Faults, Rows

if TYPE_CHECKING:
    from _csv import Reader

# FER+'s columns in their order; the first seven with their expressions in FER2013.
_VOTED = {
    "neutral": "Neutral",
    "happiness": "Happy",
    "surprise": "Surprise",
    "sadness": "Sad",
    "anger": "Angry",
    "disgust": "Disgust",
    "fear": "Fear",
}
_OTHERS = ("contempt", "unknown", "NF")
_COLUMNS = ("Usage", *_VOTED, *_OTHERS)
_COUNTS = {str(count) for count in range(11)}  # ten people voted
_MAX_BYTES = 64 * 2**20

Votes = NDArray[np.uint8]


@dataclass(frozen=True)
class FerPlusLabels:
    """FER+'s labels of n images.

    labels: [n] uint8.

    kept: [n], False if the label is contempt, unknown or no face, or if there is no majority.

    soft_labels: [n, 7] float32, the shares of the votes for FER2013's expressions; rows that are kept sum to 1.
    """

    labels: Labels
    kept: Flags
    soft_labels: SoftLabels


def judge(path: Path, rows: Rows, *, majority: bool = False) -> FerPlusLabels:
    """FER+'s labels for the rows of a FER2013 csv, by plurality or, with `majority`, by FER+'s own rule.

    If several labels have the most votes, the plurality is the first of them in FER+'s file: neutral, happiness,
    surprise, sadness, anger, disgust, fear, contempt, unknown, NF.

    Raises:
        DataError: the file cannot be read, is not FER+'s, or belongs to other rows.
    """
    try:
        with opened(path) as text:
            usages, votes = _read_votes(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path of FER+'s fer2013new.csv") from error
    if len(votes) != rows.total:
        raise DataError(
            f"{path}: {len(votes):,} rows, but the csv of faces has {rows.total:,}: they are joined by their place; "
            "use FER+ with the whole fer2013.csv or icml_face_data.csv"
        )
    usages, votes = usages[rows.positions], votes[rows.positions]
    if rows.usages is not None and not np.array_equal(usages, rows.usages):
        _refuse_other_order(path, usages, rows)
    counted = np.where(votes > 1, votes, 0) if majority else votes
    winners = counted.argmax(axis=1)
    expression = np.array([EXPRESSIONS.index(name) for name in _VOTED.values()], np.uint8)
    kept = winners < len(expression)
    if majority:
        kept &= 2 * counted.max(axis=1) > counted.sum(axis=1)
    labels = expression[np.where(kept, winners, 0)]
    return FerPlusLabels(labels, kept, _shares(votes[:, : len(expression)], expression))


def _shares(votes: Votes, expression: Labels) -> SoftLabels:
    counts = np.zeros(votes.shape, np.float32)
    counts[:, expression] = votes
    counts /= np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return counts


def _refuse_other_order(path: Path, usages: Labels, rows: Rows) -> None:
    first = int(np.flatnonzero(usages != rows.usages)[0])
    here, there = USAGES[usages[first]], USAGES[rows.usages[first]] if rows.usages is not None else ""
    raise DataError(
        f"{path}: row {int(rows.positions[first]) + 1:,} is {here} here and {there} in the csv of faces: they are "
        "joined by their place; use a csv of faces in FER2013's official order"
    )


def _read_votes(text: Text) -> tuple[Labels, Votes]:
    """Read usages [n] and votes [n, 10], in FER+'s order of columns."""
    if text.bytes > _MAX_BYTES:
        raise DataError(f"{text.shown}: too large: over {_MAX_BYTES // 2**20} MiB; FER+'s fer2013new.csv has 2 MiB")
    file = io.TextIOWrapper(text.file, encoding="utf-8-sig", errors="replace", newline="")
    try:
        return _table(text.shown, csv.reader(file))
    except csv.Error as error:
        raise DataError(f"{text.shown}: not FER+'s fer2013new.csv: {error}") from error
    finally:
        file.detach()


def _table(shown: str, lines: Reader) -> tuple[Labels, Votes]:
    names = [name.strip() for name in next(lines, [])]
    others = [name for name in names if name not in _COLUMNS]
    missing = [f"{name} is missing{nearest(name, others)}" for name in _COLUMNS if name not in names]
    if missing:
        expected = f"expected the columns {', '.join(_COLUMNS)}"
        raise DataError(f"{shown}:1: not FER+'s fer2013new.csv: {expected}; {'; '.join(missing)}")
    places, values, faults = [names.index(name) for name in _COLUMNS], bytearray(), Faults(shown)
    for fields in filter(None, lines):
        row = _parse([value.strip() for value in fields], names, places)
        if isinstance(row, bytes):
            values += row
        else:
            faults.add(lines.line_num, row)
    if faults.total:
        raise DataError(faults.message())
    table = np.frombuffer(values, np.uint8).reshape(-1, len(_COLUMNS))
    return table[:, 0], table[:, 1:]


def _parse(fields: Sequence[str], names: Sequence[str], places: Sequence[int]) -> bytes | list[str]:
    """The index of the usage and the votes of a row, or its faults."""
    if len(fields) != len(names):
        return [f"expected {len(names)} fields, got {len(fields)}"]
    usage, *votes = (fields[place] for place in places)
    if usage in USAGES and all(vote in _COUNTS for vote in votes):
        return bytes([USAGES.index(usage), *map(int, votes)])
    wrong = [] if usage in USAGES else [f"Usage '{usage}', expected {', '.join(USAGES)}"]
    by_name = zip(_COLUMNS[1:], votes, strict=True)
    return wrong + [f"{name} '{vote}', expected 0..10" for name, vote in by_name if vote not in _COUNTS]
