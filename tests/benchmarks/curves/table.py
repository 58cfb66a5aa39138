"""FER-Curves as one file: packed from the files of a recording, and read back as arrays.

Legend: r runs, e epochs of the longest run, n faces.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.benchmarks.curves.record import Setting

FER_CURVES = Path(__file__).with_name("fer_curves.parquet")
"""The recorded table that belongs to this project."""

SERIES = (
    "val_accuracy",
    "held_out_accuracy",
    "val_loss",
    "train_loss",
    "train_accuracy",
    "seconds",
    "processor_seconds",
)

Series = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """Runs in the order of their numbers; what a run that diverged never reached is NaN."""

    setting: Setting
    numbers: NDArray[np.int64]
    repeats: NDArray[np.int64]
    params: tuple[dict[str, Any], ...]
    diverged: NDArray[np.bool_]
    series: dict[str, Series]
    """By name of SERIES: [r, e]."""
    packed: NDArray[np.uint8]
    """[r, e, bytes] bits of right answers: on the val faces, then on those held out."""

    @property
    def firsts(self) -> NDArray[np.int64]:
        """Places of the runs that are the first of their configuration."""
        return np.flatnonzero(self.repeats == 0)

    @property
    def epoch_seconds(self) -> Series:
        """[r, e] what an epoch costs: of the processor, which other programs do not change, or on a GPU of the clock."""
        return self.series["processor_seconds" if self.setting.device == "cpu" else "seconds"]

    def right(self, run: int, epoch: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which val faces and which held-out faces a run has right after an epoch (from 1)."""
        n = self.setting.val_faces
        bits = np.unpackbits(self.packed[run, epoch - 1], count=n + self.setting.held_out_faces).astype(bool)
        return bits[:n], bits[n:]


def recorded(path: Path) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """One run's file: what is said about it, and its bits [epochs, bytes]."""
    with np.load(path) as kept:
        return json.loads(str(kept["about"])), kept["right"]


def pack(folder: Path, target: Path) -> int:
    """Write every run of a recording into one table; how many there are."""
    runs = [recorded(path) for path in sorted(folder.glob("*-*.npz"))]
    settings = {json.dumps(about["setting"]) for about, _ in runs}
    if len(settings) != 1:
        raise SystemExit(f"{folder}: runs of {len(settings)} settings, a table takes those of one")
    columns: dict[str, list[Any]] = {
        "number": [about["number"] for about, _ in runs],
        "repeat": [about["repeat"] for about, _ in runs],
        "params": [json.dumps(about["params"]) for about, _ in runs],
        "diverged": [about["diverged"] for about, _ in runs],
        "right": [[row.tobytes() for row in right] for _, right in runs],
    }
    for name in SERIES:
        columns[name] = [[epoch[name] for epoch in about["epochs"]] for about, _ in runs]
    types = {name: pa.list_(pa.float32()) for name in SERIES} | {"right": pa.list_(pa.binary())}
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata({"setting": settings.pop()})
    pq.write_table(table, target, compression="zstd", compression_level=19)
    return len(runs)


def load(path: Path = FER_CURVES) -> Curves:
    """Read a packed table."""
    table = pq.read_table(path)
    setting = Setting(**json.loads(table.schema.metadata[b"setting"]))
    rows = table.to_pydict()
    runs, epochs = len(rows["number"]), setting.epochs
    series = {name: np.full((runs, epochs), np.nan) for name in SERIES}
    packed = np.zeros((runs, epochs, -(-(setting.val_faces + setting.held_out_faces) // 8)), np.uint8)
    for run in range(runs):
        for name in SERIES:
            values = rows[name][run]
            series[name][run, : len(values)] = values
        for epoch, bits in enumerate(rows["right"][run]):
            packed[run, epoch] = np.frombuffer(bits, np.uint8)
    return Curves(
        setting=setting,
        numbers=np.array(rows["number"]),
        repeats=np.array(rows["repeat"]),
        params=tuple(json.loads(text) for text in rows["params"]),
        diverged=np.array(rows["diverged"]),
        series=series,
        packed=packed,
    )


def described(curves: Curves) -> str:
    """The table in a few lines."""
    first = curves.firsts
    best = np.nanmax(curves.series["val_accuracy"][first], axis=1, initial=0)
    hours = np.nansum(curves.series["processor_seconds"]) / 3600
    return "\n".join(
        (
            f"{len(first)} configurations, {len(curves.numbers) - len(first)} further runs of "
            f"{len(set(curves.numbers[curves.repeats > 0]))} of them; {asdict(curves.setting)}",
            f"best val accuracy of a configuration: median {np.median(best):.1%}, "
            f"90th percentile {np.quantile(best, 0.9):.1%}, best {best.max():.1%}; {(best < 0.3).mean():.0%} under 30 %",
            f"{curves.diverged[first].sum()} diverged; {hours:.1f} hours of the processor",
        )
    )
