"""A sweep looked at from another terminal: line by line, and its curves in a line of text."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.cli.main import main
from sweeps.cli.steering.watch import sparkline
from tests import ROOT
from tests.sweeps.fake_trials import refused
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder


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


def test_logs_end_when_nobody_reads_them_any_more(run: Callable[..., int], out: Path) -> None:
    run("--trials", "1", "--epochs", "2")
    folder = SweepFolder(out / "night")
    command = [sys.executable, "-m", "sweeps", "logs", "night", "--out", str(out)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    lines = subprocess.run(command, capture_output=True, env=env, check=True).stdout.splitlines()
    with hold_folder(folder.root), subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as logs:
        assert logs.stdout
        assert [logs.stdout.readline().rstrip() for _ in lines] == lines  # now the command waits for further events
        logs.stdout.close()
        try:
            assert logs.wait(20) == 0
        finally:
            logs.kill()


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_live_table_fits_the_terminal_and_keeps_what_matters(
    run: Callable[..., int], out: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    run("--trials", "3", "--epochs", "2", "--pruner", "halving")
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=width, height=24, color_system=None, markup=False)
    monkeypatch.setattr("sweeps.cli.steering.watch.console", terminal)
    assert main(["status", "night", "--watch", "--out", str(out)]) == 0
    lines = [line.rstrip() for line in screen.getvalue().rpartition("\x1b[?1049l")[2].splitlines()]
    heading = next(line for line in lines if line.startswith("trial "))
    assert [word for word in ("trial", "state", "epoch", "best", "curve", "reason") if word not in heading] == []
    assert ("forecast" in heading) == (width >= 120)
    report = next(line for line in lines if line.startswith("0 report"))
    best = SweepHistory.load(out / "night/journal.jsonl").trials[0].best_accuracy
    assert report.split()[:5] == ["0", "report", "done", "2/2", f"{best:.2%}"]
    assert max(map(len, lines)) <= width


def test_a_curve_in_a_line() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.2, 0.2]) == "▁▁"
    assert sparkline([math.nan]) == ""
    assert len(sparkline([epoch / 200 for epoch in range(200)])) == 24
