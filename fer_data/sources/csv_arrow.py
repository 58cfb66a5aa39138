"""The fast reader of a FER2013 csv: it uses Arrow and accepts only files without faults."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_data.faces import GreyLevels, Labels
from fer_data.sources.compressed import Text
from fer_data.sources.csv_rows import EMOTIONS, PIXELS, USAGES, Collected, Header, Rows, read_carefully

_BLOCK_BYTES = 8 * 2**20


def read_rows(text: Text, header: Header, *, skip_bad: bool = False) -> Rows:
    """Read all rows below the header, or with `skip_bad` the valid ones.

    Raises:
        DataError: names the first five faulty lines and the number of the others; or there are no rows.
        OSError: the file cannot be read.
    """
    return read_fast(text, header) or read_carefully(text, header, skip_bad=skip_bad)


def read_fast(text: Text, header: Header) -> Rows | None:
    """Read a file without faults. Returns None if anything in it may be a fault.

    Raises:
        DataError: there are too many rows.
        OSError: the file cannot be read.
    """
    pa, csv, _ = _arrow()
    text.file.seek(0)
    collected = Collected(text, header)
    with contextlib.suppress(pa.ArrowInvalid, pa.ArrowKeyError):
        reader = csv.open_csv(
            pa.PythonFile(text.file, "r"),
            read_options=csv.ReadOptions(
                block_size=_BLOCK_BYTES, column_names=list(header.names), skip_rows=1, use_threads=False
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(header.columns), column_types=dict.fromkeys(header.columns, pa.string())
            ),
        )
        for batch in reader:
            rows = _decode(batch)
            if rows is None:
                return None
            collected.add(*rows, position=len(collected))
        return collected.rows(total=len(collected)) if len(collected) else None
    return None


def _arrow() -> tuple[Any, Any, Any]:
    """Import pyarrow only if a csv is read. Its compiled modules have no types."""
    import pyarrow as pa
    from pyarrow import compute, csv

    return pa, csv, compute


def _decode(batch: Any) -> tuple[GreyLevels, Labels, Labels | None] | None:
    pa, _, compute = _arrow()
    text = batch.column("pixels")
    known = {"emotion": EMOTIONS, "Usage": USAGES}
    indices = {
        name: compute.index_in(batch.column(name), pa.array(values))
        for name, values in known.items()
        if name in batch.schema.names
    }
    if text.null_count or any(column.null_count for column in indices.values()) or _has_letters(text):
        return None
    values = compute.split_pattern(text, " ")
    if not np.all(np.diff(values.offsets.to_numpy()) == PIXELS):
        return None
    pixels = values.flatten().cast(pa.uint8()).to_numpy().reshape(-1, PIXELS)
    return pixels, _as_uint8(indices["emotion"]), _as_uint8(indices["Usage"]) if "Usage" in indices else None


def _has_letters(text: Any) -> bool:
    """Whether any byte is above '9': Arrow reads 0x1F as 31, which is not a valid pixel here."""
    characters = np.frombuffer(text.buffers()[2] or b"", dtype=np.uint8)
    return bool(characters.max(initial=0) > ord("9"))


def _as_uint8(indices: Any) -> NDArray[np.uint8]:
    return np.asarray(indices.to_numpy(), dtype=np.uint8)
