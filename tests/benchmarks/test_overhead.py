import subprocess
import sys

import pytest

from tests import ROOT
from tests.benchmarks.rows import Row, marginal_core_seconds


def test_start_up_and_training_drop_out_of_the_marginal_cost() -> None:
    # 2 cores, 10 s to start, then two trials at a time that take 1 s of training and 0.25 s of overhead each.
    walls = (10 + 40 * 1.25 / 2, 10 + 80 * 1.25 / 2)
    assert marginal_core_seconds(2, walls, (40, 80), training=1.0) == pytest.approx(0.25)


def test_ratios_are_taken_within_a_round() -> None:
    row = Row("", "", "", ours=(1.0, 6.0), peers=(2.0, 3.0), digits=1, target="")
    assert row.ratios == [0.5, 2.0]


@pytest.mark.slow
def test_the_table_has_a_row_for_every_net() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.overhead", "--quick", "--only", "step"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "bare loop" in line]
    for net, row in zip(("LeNet", "AlexNet, LRN", "AlexNet, batch norm"), rows, strict=True):
        measure, ours, peer, _, ratio, target = (cell.strip() for cell in row.strip("│").split("│"))
        assert measure == net
        assert float(ratio) == pytest.approx(float(ours.replace(",", "")) / float(peer.replace(",", "")), abs=0.02)
        assert target == "at least 0.90 of the peer"
    assert "n = 1" in done.stdout
