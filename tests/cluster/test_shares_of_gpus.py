"""Where Ray puts trials that share GPUs, on a cluster of several nodes whose GPUs are claimed, not real."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.journal_laws import check_finished, most_out_at_once
from tests.cluster.processes import environment, python
from tests.cluster.quick_trials import diaries
from tests.stand_ins import SMALL_NET
from tracking.record.history import SweepHistory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RUN = """
import json, sys
from ray.cluster_utils import Cluster
from tests.cluster.quick_trials import sweep
gpus, options = json.loads(sys.argv[1]), json.loads(sys.argv[2])
node = {"num_cpus": 4, "object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args=node | {"num_gpus": gpus[0], "include_dashboard": False})
for count in gpus[1:]:
    cluster.add_node(num_gpus=count, **node)
code = sweep(address=cluster.address, **options)
cluster.shutdown()
sys.exit(code)
"""
"""Runs a sweep on nodes with the numbers of GPUs that it is given."""


FAKE_NVML = """
import sys
from tests.stand_ins import Card, FakeNvml
sys.modules["pynvml"] = FakeNvml(Card("GPU-t4", (7, 5), "Tesla T4"))
"""
"""A module for processes that are to find a GPU of this kind in their machine."""


def run(folder: Path, gpus: list[int], at_once: int, before: str = "", **options: Any) -> list[dict[str, Any]]:
    """The diaries of a sweep on nodes with so many GPUs each; the first epochs wait for `at_once` trials."""
    (folder / "gather").write_text(str(at_once))
    asked = {"name": "shared", "out": str(folder), "tracking_uri": f"sqlite:///{folder}/mlflow.db", **options}
    around = environment(folder)
    around["PYTHONPATH"] = f"{folder / 'modules'}:{around['PYTHONPATH']}"
    done = python(around, "-c", before + RUN, json.dumps(gpus), json.dumps(asked), timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    check_finished(folder / "shared", options["trials"])
    return diaries(folder / "shared")


def most_at_once(lines: Sequence[dict[str, Any]]) -> int:
    """How many of these epochs were computed at the same moment."""
    return max(sum(other["start"] <= line["start"] < other["end"] for other in lines) for line in lines)


def by_gpu(lines: Sequence[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """(node, CUDA_VISIBLE_DEVICES) → how many trials were there at the same moment."""
    places = {(line["node"], line["gpu"]) for line in lines}
    return {place: most_at_once([line for line in lines if (line["node"], line["gpu"]) == place]) for place in places}


def test_halves_of_gpus_fill_every_gpu_of_every_node_and_never_three_are_on_one(tmp_path: Path) -> None:
    lines = run(tmp_path, [1, 2], 6, gpus_per_trial=0.5, trials=8)
    used = by_gpu(lines)
    assert sorted(used.values()) == [2, 2, 2]
    assert Counter(gpu for _, gpu in used) == {"0": 2, "1": 1}
    assert most_at_once(lines) == 6


def test_a_share_that_leaves_a_rest_hands_out_no_trial_that_has_no_place(tmp_path: Path) -> None:
    """Two GPUs are five times 0.4, but a trial cannot have a fifth of each: two find a place on either."""
    lines = run(tmp_path, [1, 1], 4, gpus_per_trial=0.4, trials=6)
    assert sorted(by_gpu(lines).values()) == [2, 2]
    assert most_out_at_once(tmp_path / "shared/journal.jsonl") == 4


MIXED = """
from unittest import mock
import tests.cluster.quick_trials as quick
from fer_models import AlexNetConfig
from sweeps import Space
from sweeps.planning.gpu_share import Sizing
def suggest(trial):
    small = quick.suggest(trial)
    return small if trial.number % 3 else small.model_copy(update={"net": AlexNetConfig()})
quick.SPACE = Space(suggest=suggest, max_epochs=2, first_rung_epochs=2, trials=9, name="quick")
sizing = Sizing({"alexnet": 1.0, quick.SMALL_NET.name: 0.5}, ())
mock.patch("sweeps.planning.gpu_share.measured_shares", lambda plan, configs: sizing).start()
"""
"""Measures nothing, and finds that AlexNet fills a GPU and that two small nets do."""


def test_nets_with_different_shares_are_never_more_than_a_gpu(tmp_path: Path) -> None:
    lines = run(tmp_path, [1], 1, before=MIXED, trials=9)
    history = SweepHistory.load(tmp_path / "shared/journal.jsonl")
    assert history.drivers[0].spec["gpu_shares"] == {"alexnet": 1.0, SMALL_NET.name: 0.5}
    large = {f"{n:04d}" for n, trial in history.trials.items() if trial.started.config["net"]["name"] == "alexnet"}
    assert len(large) == 3
    for line in lines:
        beside = {other["trial"] for other in lines if other["start"] <= line["start"] < other["end"]}
        assert len(beside) == 1 if beside & large else len(beside) <= 2
    assert most_at_once(lines) == 2, "two small ones did share it"


def test_the_nodes_are_asked_what_their_gpus_can(tmp_path: Path) -> None:
    """The driver's machine has none: the kind of the cluster's decides the precision, and is recorded."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/pynvml.py").write_text(FAKE_NVML)
    run(tmp_path, [0, 1], 1, gpus_per_trial=1, trials=1, epochs=1)
    history = SweepHistory.load(tmp_path / "shared/journal.jsonl")
    assert history.trials[0].started.config["precision"] == "fp16"
    assert str(history.drivers[0].gpus).startswith("Tesla T4 (compute capability 7.5)")


def test_trials_on_cores_see_no_gpu_though_the_nodes_have_some(tmp_path: Path) -> None:
    lines = run(tmp_path, [1, 1], 1, device="cpu", trials=2)
    assert {line["gpu"] for line in lines} == {""}
