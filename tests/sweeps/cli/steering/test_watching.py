"""A sweep looked at from another terminal: line by line, and its curves in a line of text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.cli.main import main
from sweeps.cli.steering.watch import sparkline
from tests.sweeps.fake_trials import refused


def test_logs_of_a_sweep_and_of_a_trial(run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--trials", "2", "--epochs", "2")
    capsys.readouterr()
    assert main(["logs", "night", "1", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trial 1 lenet: started (at most 2 epochs)"
    assert all(line.startswith("trial 1 ") for line in lines)
    assert main(["logs", "night", "--json", "--out", str(out)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["event"] for event in events} >= {"driver", "trial", "epoch", "end", "finished"}
    assert "no trial '7'" in refused(capsys, lambda: main(["logs", "night", "7", "--out", str(out)]))
    assert "--watch needs a terminal" in refused(
        capsys, lambda: main(["status", "night", "--watch", "--out", str(out)])
    )


def test_a_curve_in_a_line() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.2, 0.2]) == "▁▁"
    assert sparkline([math.nan]) == ""
    assert len(sparkline([epoch / 200 for epoch in range(200)])) == 24
