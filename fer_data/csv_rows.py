"""The rows of a FER2013 csv, read twice as fast as they come or carefully enough to explain what is wrong.

The fast reader takes only what is plainly right. Whatever it doubts goes to the careful reader, which defines
the format: it reads the file all the same (stray spaces, blank lines) or names the faulty lines.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_data.faces import EXPRESSIONS, DataError, Images, Labels

SIDE = 48
PIXELS = SIDE * SIDE
COLUMNS = ("emotion", "pixels", "Usage")
USAGES = ("Training", "PublicTest", "PrivateTest")

_EMOTIONS = tuple(str(number) for number in range(len(EXPRESSIONS)))
_BLOCK_BYTES = 8 * 2**20
_MAX_FAULTS_SHOWN = 5
_GREY_LEVELS = {f"{level:0{digits}}": level for level in range(256) for digits in (1, 2, 3)}


@dataclass(frozen=True)
class Header:
    """The column names in the order of the file, stripped."""

    names: Sequence[str]


@dataclass(frozen=True)
class Rows:
    """pixels: [n, 2304] uint8; emotions, usages: [n] uint8, indices into EXPRESSIONS and USAGES."""

    pixels: Images
    emotions: Labels
    usages: Labels


@dataclass
class _Faults:
    """The first few faulty lines in words, and how many there are."""

    path: Path
    shown: list[str] = field(default_factory=list)
    total: int = 0

    def add(self, line: int, what: Sequence[str]) -> None:
        self.total += 1
        if len(self.shown) < _MAX_FAULTS_SHOWN:
            self.shown.append(f"{self.path}:{line}: {'; '.join(what)}")

    def message(self) -> str:
        more = self.total - len(self.shown)
        return "\n".join([*self.shown, f"and {more:,} more"] if more else self.shown)


def read_rows(path: Path, header: Header) -> Rows:
    """Read all rows below the header.

    Raises:
        DataError: naming the first five faulty lines and the number of the others, or that there are no rows.
        OSError: the file cannot be read.
    """
    return _read_fast(path, header) or _read_carefully(path, header)


def fields_of(line: str) -> list[str]:
    """Split a line, whose values never hold a comma; spaces and quotes around values are dropped."""
    return [value.strip().strip('"').strip() for value in line.split(",")]


def did_you_mean(value: str, known: Sequence[str]) -> str:
    """Return ", did you mean 'X'?" for the nearest known name, or nothing."""
    lowered = {name.lower(): name for name in reversed(known)}
    near = difflib.get_close_matches(value.lower(), list(lowered), n=1)
    return f", did you mean '{lowered[near[0]]}'?" if near else ""


def _read_fast(path: Path, header: Header) -> Rows | None:
    """Read a file that is plainly right; None at the first doubt."""
    pa, csv, _ = _arrow()
    batches: list[Rows] = []
    with path.open("rb") as file, contextlib.suppress(pa.ArrowInvalid, pa.ArrowKeyError):
        reader = csv.open_csv(
            file,
            read_options=csv.ReadOptions(
                block_size=_BLOCK_BYTES, column_names=list(header.names), skip_rows=1, use_threads=False
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(COLUMNS), column_types=dict.fromkeys(COLUMNS, pa.string())
            ),
        )
        for batch in reader:
            rows = _decode(batch)
            if rows is None:
                return None
            batches.append(rows)
        return _joined(batches) if batches else None
    return None


def _arrow() -> tuple[Any, Any, Any]:
    """Import pyarrow only where a csv is read; its compiled modules are opaque to a type checker."""
    import pyarrow as pa
    from pyarrow import compute, csv

    return pa, csv, compute


def _decode(batch: Any) -> Rows | None:
    pa, _, compute = _arrow()
    text = batch.column("pixels")
    emotions = compute.index_in(batch.column("emotion"), pa.array(_EMOTIONS))
    usages = compute.index_in(batch.column("Usage"), pa.array(USAGES))
    if text.null_count or emotions.null_count or usages.null_count or _has_letters(text):
        return None
    values = compute.split_pattern(text, " ")
    if not np.all(np.diff(values.offsets.to_numpy()) == PIXELS):
        return None
    pixels = values.flatten().cast(pa.uint8()).to_numpy()
    return Rows(pixels.reshape(-1, PIXELS), _as_uint8(emotions), _as_uint8(usages))


def _has_letters(text: Any) -> bool:
    """Arrow reads 0x1F as 31, which is no pixel here: look for any byte above '9'."""
    characters = np.frombuffer(text.buffers()[2] or b"", dtype=np.uint8)
    return bool(characters.max(initial=0) > ord("9"))


def _as_uint8(indices: Any) -> NDArray[np.uint8]:
    return np.asarray(indices.to_numpy(), dtype=np.uint8)


def _joined(batches: Sequence[Rows]) -> Rows:
    return Rows(
        pixels=np.concatenate([rows.pixels for rows in batches]),
        emotions=np.concatenate([rows.emotions for rows in batches]),
        usages=np.concatenate([rows.usages for rows in batches]),
    )


def _read_carefully(path: Path, header: Header) -> Rows:
    """Read line by line, as a text editor counts them; the file is right or every faulty line is counted."""
    pixels, emotions, usages = bytearray(), bytearray(), bytearray()
    faults = _Faults(path)
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        file.readline()
        for number, line in enumerate(file, start=2):
            if not line.strip():
                continue
            row = _parse(line, header)
            if isinstance(row, list):
                faults.add(number, row)
                continue
            emotions.append(row[0])
            pixels += row[1]
            usages.append(row[2])
    if faults.total:
        raise DataError(faults.message())
    if not emotions:
        raise DataError(f"{path}: no data rows below the header; expected 35,887 of them in FER2013's csv")
    grey, emotion, usage = (np.frombuffer(values, np.uint8) for values in (pixels, emotions, usages))
    return Rows(grey.reshape(-1, PIXELS), emotion, usage)


def _parse(line: str, header: Header) -> tuple[int, bytes, int] | list[str]:
    """Return emotion, pixels and usage of a line, or else everything that is wrong with it."""
    fields = fields_of(line)
    cut_short = [] if line.endswith("\n") else ["the file ends within this line: truncated? get it again"]
    if len(fields) != len(header.names):
        return [f"expected {len(header.names)} fields, got {len(fields)}", *cut_short]
    emotion, text, usage = (fields[header.names.index(name)] for name in COLUMNS)
    words = text.split()
    try:
        if len(words) == PIXELS:
            pixels = bytes(map(_GREY_LEVELS.__getitem__, words))
            return _EMOTIONS.index(emotion), pixels, USAGES.index(usage)
    except (KeyError, ValueError):
        pass
    return [*_emotion_faults(emotion), *_pixel_faults(words), *_usage_faults(usage), *cut_short]


def _emotion_faults(emotion: str) -> list[str]:
    return [] if emotion in _EMOTIONS else [f"emotion {_shown(emotion)}, expected 0..{len(_EMOTIONS) - 1}"]


def _usage_faults(usage: str) -> list[str]:
    if usage in USAGES:
        return []
    hint = did_you_mean(usage, USAGES) or f", expected {', '.join(USAGES)}"
    return [f"Usage '{_shown(usage)}'{hint}"]


def _pixel_faults(words: Sequence[str]) -> list[str]:
    """Say how many pixels there are if it is not 2,304, else what is wrong with the first faulty one."""
    if len(words) != PIXELS:
        return [f"{len(words)} pixels, expected {PIXELS} ({SIDE}×{SIDE})"]
    for number, word in enumerate(words, start=1):
        if word not in _GREY_LEVELS:
            return [_word_fault(number, word)]
    return []


def _word_fault(number: int, word: str) -> str:
    if not re.fullmatch(r"-?[0-9]+", word):
        return f"pixel {number} '{_shown(word)}' is not an integer"
    return f"pixel {number} {_shown(word)} outside 0..255"


def _shown(value: str) -> str:
    return value if len(value) <= 40 else value[:37] + "..."
