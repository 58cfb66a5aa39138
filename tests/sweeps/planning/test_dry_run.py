"""What a dry run says of the time that a sweep takes."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sweeps import Space
from sweeps.options import Options
from sweeps.planning.dry_run import dry_run
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from tests.sweeps.fake_trials import config

SPACE = Space(suggest=lambda trial: config(trial.suggest_float("lr", 1e-3, 0.1, log=True)), name="lrs")


@pytest.mark.parametrize(
    ("pruner", "says"),
    [
        ("promoting", "at once, if one in 4 passes the first rung and one in 2 each later rung; "),
        ("halving", "at once, if one in 3 passes the first rung and one in 3 each later rung; "),
        ("one-epoch", "at once, if one in 9 passes the first rung; "),
        ("hyperband", "at once, without pruning\n"),
        ("median", "at once, without pruning\n"),
        ("none", "at once\n"),
    ],
)
def test_the_time_names_the_rule_of_the_pruner(tmp_path: Path, tiny_csv: Path, pruner: str, says: str) -> None:
    asked = {"data": str(tiny_csv), "name": "night", "runner": "inline", "out": tmp_path / "runs", "pruner": pruner}
    printed = StringIO()
    dry_run(make_plan(SPACE, Options.parse(asked), find_hardware), Console(file=printed, width=300))
    assert says in printed.getvalue()
