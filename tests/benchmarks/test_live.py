"""What the comparison of whole sweeps counts, on curves by hand."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from tests.benchmarks.live import Curve, Setting, table

SETTING = Setting("fer2013.csv", 6000, 600.0, Path("out"))
GLUE = Curve(seconds=(50.0, 100.0, 400.0), best=(0.2, 0.3, 0.4), epochs=3, trials=3)


def row(ours: Curve) -> list[str]:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table([(ours, GLUE)], SETTING))
    line = next(line for line in console.export_text().splitlines() if line.startswith("│      1"))
    return [cell.strip() for cell in line.split("│")[1:-1]]


def test_the_time_is_that_of_the_first_epoch_as_good_as_the_glues_best() -> None:
    ours = Curve(seconds=(60.0, 100.0, 300.0), best=(0.3, 0.4, 0.5), epochs=5, trials=2)
    assert row(ours) == ["1", "50.00", "40.00", "2 / 3", "5 / 3", "100", "400", "0.25"]


def test_a_sweep_that_never_gets_there_counts_with_all_its_time() -> None:
    ours = Curve(seconds=(60.0,), best=(0.3,), epochs=1, trials=1)
    assert row(ours) == ["1", "30.00", "40.00", "1 / 3", "1 / 3", "> 600", "400", "> 1.50"]


def test_a_sweep_without_an_epoch_counts_too() -> None:
    assert row(Curve((), (), 0, 0))[1:6] == ["0.00", "40.00", "0 / 3", "0 / 3", "> 600"]
