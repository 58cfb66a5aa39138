"""The rows of a FER2013 csv. A fast reader reads them, or a careful one that explains faults.

The fast reader accepts only files without faults. All others go to the careful reader, which defines the format: it
accepts the file (extra spaces, blank lines) or names the faulty lines.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fer_common.errors import nearest
from fer_data.cache.stratify import Indices
from fer_data.faces import EXPRESSIONS, DataError, GreyLevels, Labels
from fer_data.sources.compressed import Text

SIDE = 48
PIXELS = SIDE * SIDE
USAGES = ("Training", "PublicTest", "PrivateTest")
EMOTIONS = tuple(str(number) for number in range(len(EXPRESSIONS)))
MAX_ROWS = 200_000

_MAX_LINE = 2**20
_MAX_FAULTS_SHOWN = 5
_MAX_LEFT_OUT = 10_000
_GREY_LEVELS = {f"{level:0{digits}}": level for level in range(256) for digits in (1, 2, 3)}


@dataclass(frozen=True)
class Header:
    """The column names in the order of the file, stripped: emotion, pixels, optionally Usage and others."""

    names: Sequence[str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(name for name in ("emotion", "pixels", "Usage") if name in self.names)


@dataclass(frozen=True)
class Rows:
    """The rows of a csv, without those left out.

    pixels: [n, 2304] uint8.

    emotions, usages: [n] uint8, indices into EXPRESSIONS and USAGES; usages is None without that column.

    positions: [n], the index of each row among all `total` rows of the file.

    left_out: one line per row that was left out; usages_left_out: the Usages of those rows.
    """

    pixels: GreyLevels
    emotions: Labels
    usages: Labels | None
    positions: Indices
    total: int
    left_out: tuple[str, ...] = ()
    usages_left_out: frozenset[str] = frozenset()


class Collected:
    """Collects rows in one preallocated array. Its memory is used only as rows are added."""

    def __init__(self, text: Text, header: Header) -> None:
        most = min(text.bytes // (2 * PIXELS - 1) + 1, MAX_ROWS)  # a row has at least a digit and a separator per pixel
        self._text = text
        self._pixels = np.empty((most, PIXELS), np.uint8)
        self._emotions, self._positions = np.empty(most, np.uint8), np.empty(most, np.intp)
        self._usages = np.empty(most, np.uint8) if "Usage" in header.columns else None
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, pixels: GreyLevels, emotions: Labels, usages: Labels | None, position: int) -> None:
        """Add consecutive rows of the file; the first of them is at this position."""
        end = self._n + len(pixels)
        if end > len(self._pixels):
            raise DataError(f"{self._text.shown}: more than {MAX_ROWS:,} rows; FER2013 has 35,887: divide the file")
        new = slice(self._n, end)
        self._pixels[new], self._emotions[new] = pixels, emotions
        self._positions[new] = np.arange(position, position + len(pixels))
        if self._usages is not None and usages is not None:
            self._usages[new] = usages
        self._n = end

    def rows(self, total: int) -> Rows:
        """The rows that were added, of `total` rows in the file."""
        usages = None if self._usages is None else self._usages[: self._n]
        return Rows(self._pixels[: self._n], self._emotions[: self._n], usages, self._positions[: self._n], total)


@dataclass
class Faults:
    """The number of faulty lines of a file, and messages about the first `keep` of them."""

    shown: str
    kept: list[str] = field(default_factory=list)
    keep: int = _MAX_FAULTS_SHOWN
    total: int = 0

    def add(self, line: int, what: Sequence[str]) -> None:
        """Count a faulty line with its faults."""
        self.total += 1
        if len(self.kept) < self.keep:
            self.kept.append(f"{line}: {'; '.join(what)}")

    def message(self) -> str:
        """The first five faulty lines, each with its line number, and the number of the others."""
        lines = [f"{self.shown}:{fault}" for fault in self.kept[:_MAX_FAULTS_SHOWN]]
        more = self.total - len(lines)
        return "\n".join([*lines, f"and {more:,} more"] if more else lines)


def fields_of(line: str) -> list[str]:
    """Split a line by the rules of csv; spaces around values are removed.

    Raises:
        csv.Error: a quote is not closed, or a value is longer than 131,072 characters.
    """
    reader = csv.reader([line, ""], skipinitialspace=True)
    fields = next(reader)
    if reader.line_num > 1:
        raise csv.Error("a quote is not closed within the line")
    return [value.strip() for value in fields]


def read_carefully(text: Text, header: Header, *, skip_bad: bool) -> Rows:
    """Read line by line; lines are counted as in a text editor, and all faulty ones are reported."""
    collected, total = Collected(text, header), 0
    faults = Faults(text.shown, keep=_MAX_LEFT_OUT if skip_bad else _MAX_FAULTS_SHOWN)
    emotions, usages = set(), set()  # of the faulty rows
    for number, line in _lines(text):
        row = _parse(line, header)
        if isinstance(row, _BadRow):
            faults.add(number, row.what)
            emotions.add(row.emotion)
            usages.add(row.usage)
        else:
            emotion, pixels, usage = row
            collected.add(_bytes(pixels)[None], _bytes([emotion]), None if usage is None else _bytes([usage]), total)
        total += 1
    rows = collected.rows(total)
    _refuse_one_based(text, {*rows.emotions.tolist(), *emotions})
    if faults.total > (_MAX_LEFT_OUT if skip_bad else 0) or (faults.total and not len(collected)):
        few = faults.total <= min(_MAX_LEFT_OUT, len(collected))
        way_out = "\nfix this, or leave these rows out: --skip-bad" if few and not skip_bad else ""
        raise DataError(f"{faults.message()}{way_out}")
    if not len(collected):
        raise DataError(f"{text.shown}: no data rows below the header; expected 35,887 of them in FER2013's csv")
    left_out = tuple(f"line {fault}" for fault in faults.kept)
    return replace(rows, left_out=left_out, usages_left_out=frozenset(usages - {""}))


def _refuse_one_based(text: Text, emotions: Set[object]) -> None:
    """Refuse labels that count from 1: they would be read as the next class, and the last class would be left out."""
    if str(len(EMOTIONS)) in emotions and not emotions & {0, "0"}:
        order = ", ".join(f"{number} {name}" for number, name in enumerate(EXPRESSIONS))
        raise DataError(
            f"{text.shown}: the column emotion has {len(EMOTIONS)} but never 0, so its labels count from 1; "
            f"FER2013's count from 0 ({order}): renumber the column in this order"
        )


def _bytes(values: Sequence[int]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes(values), np.uint8)


def _lines(text: Text) -> Iterator[tuple[int, str]]:
    """Yield the lines below the header that are not blank; a line that is far too long is truncated."""
    text.file.seek(0)
    file = io.TextIOWrapper(text.file, encoding="utf-8-sig", errors="replace")
    try:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), ""), start=1):
            rest = line
            while len(rest) == _MAX_LINE and not rest.endswith("\n"):
                rest = file.readline(_MAX_LINE)
            if number > 1 and line.strip():
                yield number, line
    finally:
        file.detach()


@dataclass(frozen=True)
class _BadRow:
    """The faults of a row, and its emotion and Usage as they are written, if it has them."""

    what: Sequence[str]
    emotion: str = ""
    usage: str = ""


def _parse(line: str, header: Header) -> tuple[int, bytes, int | None] | _BadRow:
    """The emotion, pixels and usage of a line, or all of its faults."""
    if len(line) == _MAX_LINE:
        return _BadRow([f"longer than {_MAX_LINE:,} characters"])
    cut_short = [] if line.endswith("\n") else ["the file ends within this line: truncated? get it again"]
    try:
        fields = fields_of(line)
    except csv.Error as error:
        return _BadRow([str(error)])
    if len(fields) != len(header.names):
        return _BadRow([f"expected {len(header.names)} fields, got {len(fields)}", *cut_short])
    value = dict(zip(header.names, fields, strict=True))
    words, emotion, usage = value["pixels"].split(), value["emotion"], value.get("Usage")
    pixels = _grey_levels(words) if len(words) == PIXELS else None
    if pixels is not None and emotion in EMOTIONS and usage in (*USAGES, None):
        return EMOTIONS.index(emotion), pixels, None if usage is None else USAGES.index(usage)
    what = [*_emotion_faults(emotion), *_pixel_faults(words), *_usage_faults(usage), *cut_short]
    return _BadRow(what, emotion, usage or "")


def _grey_levels(words: Sequence[str]) -> bytes | None:
    try:
        return bytes(map(_GREY_LEVELS.__getitem__, words))
    except KeyError:
        levels = [_GREY_LEVELS.get(word.lstrip("0") or "0") for word in words]  # 0007 is 7, as in Arrow
        return None if None in levels else bytes(level or 0 for level in levels)


def _emotion_faults(emotion: str) -> list[str]:
    return [] if emotion in EMOTIONS else [f"emotion {_shown(emotion)}, expected 0..{len(EMOTIONS) - 1}"]


def _usage_faults(usage: str | None) -> list[str]:
    if usage is None or usage in USAGES:
        return []
    hint = nearest(usage, USAGES) or f", expected {', '.join(USAGES)}"
    return [f"Usage '{_shown(usage)}'{hint}"]


def _pixel_faults(words: Sequence[str]) -> list[str]:
    """A fault if there are not 2,304 pixels, otherwise the fault of the first faulty pixel."""
    if len(words) != PIXELS:
        return [f"{len(words)} pixels, expected {PIXELS} ({SIDE}×{SIDE})"]
    return next(([_word_fault(number, word)] for number, word in enumerate(words, 1) if not _grey_levels([word])), [])


def _word_fault(number: int, word: str) -> str:
    if not re.fullmatch(r"-?[0-9]+", word):
        return f"pixel {number} '{_shown(word)}' is not an integer"
    return f"pixel {number} {_shown(word)} outside 0..255"


def _shown(value: str) -> str:
    return value if len(value) <= 40 else value[:37] + "..."
