"""The head of every built-in space says what was measured with it: when, where, for how long and with what accuracy."""

from __future__ import annotations

import importlib
import re
from datetime import date

import pytest

from sweeps.spaces import SPACES
from sweeps.spaces.rows import ROWS

MEASURED = re.compile(r"Measured (\S+) on ([^:]+): ([\d.]+) minutes, ([\d.]+) % of PublicTest \(([^)]+)\)\.")
MODULES = sorted({space.suggest.__module__ for space in SPACES.values()})


def measurements(module: str) -> list[tuple[str, ...]]:
    return MEASURED.findall(" ".join((importlib.import_module(module).__doc__ or "").split()))


@pytest.mark.parametrize("module", MODULES)
def test_it_has_date_machine_minutes_and_accuracy(module: str) -> None:
    found = measurements(module)
    assert found
    for day, machine, minutes, accuracy, _ in found:
        assert date.fromisoformat(day) >= date(2026, 11, 22)
        assert re.search("core|H200|H100", machine)
        assert float(minutes) > 0
        assert 0 < float(accuracy) < 100


@pytest.mark.parametrize("module", MODULES)
def test_what_it_takes_from_the_table_of_rows_is_what_stands_there(module: str) -> None:
    for _, _, minutes, accuracy, run in measurements(module):
        if (named := re.match("`(.+?)`", run)) is None:
            continue
        ours = ROWS[named[1]].ours
        assert ours is not None
        assert (float(minutes), float(accuracy)) == (ours.minutes, ours.public)
