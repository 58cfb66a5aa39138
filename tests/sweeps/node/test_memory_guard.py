"""A trial that takes all the memory of a machine: it alone pays for it. Some 4 GiB are really taken."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import ROOT
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(psutil.virtual_memory().available < 8 * 2**30, reason="takes 4 GiB of memory for real"),
]


def run(how: str, folder: Path) -> SweepHistory:
    """The sweep of `tests/sweeps/node/greedy_trials.py`, with Ray's threshold 3 GiB above what is in use now."""
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + 3 * 2**30) / memory.total
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RAY_memory_usage_threshold": f"{threshold:.4f}",
        "RAY_worker_niceness": "0",  # on a machine that does much else the guard would come second
    }
    command = [sys.executable, "-m", "tests.sweeps.node.greedy_trials", how, str(folder)]
    result = subprocess.run(command, env=environment, timeout=600, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return SweepHistory.load(SweepFolder(folder / "greedy").journal)


def test_the_largest_worker_leaves_before_the_machine_is_full(tmp_path: Path) -> None:
    history = run("slowly", tmp_path)
    states = [trial.state for trial in history.trials.values()]
    assert (states[1], set(states[:1] + states[2:])) == ("failed", {"done"})
    greedy = history.trials[1]
    assert [attempt.attempt for attempt in greedy.attempts] == [1, 2, 3]
    reasons = [attempt.reason for attempt in greedy.attempts]
    assert all("out of memory" in reason for reason in reasons), reasons
    others = [trial for number, trial in history.trials.items() if number != 1]
    assert not any(trial.attempts for trial in others), "nobody else lost a worker"


def test_the_sweep_outlives_rays_own_end_to_it(tmp_path: Path) -> None:
    history = run("unguarded", tmp_path)
    states = [trial.state for trial in history.trials.values()]
    assert (states[1], set(states[:1] + states[2:])) == ("failed", {"done"})
    assert any("Ray ended what ran" in attempt.reason for attempt in history.trials[1].attempts)
    assert all(len(trial.epochs) == trial.last_epoch for trial in history.trials.values()), "each epoch once"
