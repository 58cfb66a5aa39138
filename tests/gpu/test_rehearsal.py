"""The checks for a GPU run on a CPU from beginning to end, so that a card's few minutes are not lost to a typing error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.spaces.rows import ROWS
from tests.gpu.cases import NETS
from tests.gpu.rows import IN_ORDER
from tracking.record.history import SweepHistory

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def _run(module: str, *words: str, timeout: int = 250) -> str:
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_quick_checks_print_a_line_each_and_write_json(tmp_path: Path) -> None:
    some = "machine,augmentation,checkpoint,graphs,lanes,twice"
    printed = _run(
        "tests.gpu.check", "--device", "cpu", "--quick", "--only", some, "--json", str(tmp_path / "rows.json")
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    speeds = [row for row in rows if row["check"].startswith("lanes compact_resnet, batch 16 each")]
    assert [row["check"].rpartition(", ")[2] for row in speeds] == ["usual steps", "graphs"]
    assert all(list(row["values"]) == ["1", "2", "4"] and min(row["values"].values()) > 0 for row in speeds)
    assert printed.splitlines()[-1].endswith("failed: nothing")
    assert [row["check"] for row in rows if row["ok"]] == [
        "augmentation, affine and erase: cpu against cpu",
        "augmentation, every switch: cpu against cpu",
        "checkpoint of cpu read on cpu",
        *(f"graph {name}: equal to eager" for name in NETS),
        "lanes compact_resnet: equal to alone",
        "same seed twice, cudnn.deterministic=True",
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_quick_check_passes() -> None:
    printed = _run("tests.gpu.check", "--device", "cpu", "--quick", "--seconds", "1500", timeout=1700)
    assert "failed: nothing" in printed
    assert " s are over" not in printed, "each of them ran"


def test_every_row_of_the_table_is_begun_on_a_gpu() -> None:
    assert sorted(IN_ORDER) == sorted(ROWS)


def test_a_row_is_a_sweep_of_one_trial_that_is_tested_once(tmp_path: Path) -> None:
    words = ("--device", "cpu", "--quick", "--only", "happy_sad_48", "--out", str(tmp_path), "--seconds", "200")
    for _ in range(2):
        assert "happy_sad_48" in _run("tests.gpu.rows", *words)
    history = SweepHistory.load(tmp_path / "happy_sad_48" / "journal.jsonl")
    assert history.trials[0].state == "done"
    assert len(history.trials[0].tests) == 1
