"""Two real drivers on one machine of two GPUs that no card has: each has its own Ray, and no GPU has too many trials."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.sharing.division import Claim
from sweeps.sharing.files import FileClaims
from sweeps.sharing.gpu_places import GpuPlaces
from sweeps.sharing.share import SharedSlots
from sweeps.sweep import SweepResult
from sweeps.trial.messages import Message, Task
from tests.cluster.processes import environment, wait_for
from tests.cluster.quick_trials import diaries
from tests.stand_ins import Card, FakeNvml
from tests.sweeps.fake_trials import good_body
from tracking.record.history import SweepHistory

GPUS = ("GPU-a", "GPU-b")
PROGRAM = """
import json, sys
from tests.stand_ins import Card, FakeNvml
sys.modules["pynvml"] = FakeNvml(Card("GPU-a"), Card("GPU-b"))
import cluster.gpus
cluster.gpus.torch_cuda = lambda: "13.0"
from tests.cluster.quick_trials import sweep
sys.exit(sweep(**json.loads(sys.argv[1])))
"""


def start(folder: Path, name: str, **options: Any) -> subprocess.Popen[bytes]:
    asked = {"name": name, "out": str(folder), "tracking_uri": f"sqlite:///{folder}/{name}.db", "cpus_per_trial": 0.25,
             "baselines": "none", "pruner": "none", **options}  # fmt: skip
    around = environment(folder) | {"FER_SLOTS": str(folder / "slots"), "FER_CACHE": str(folder / "faces")}
    around.pop("CUDA_VISIBLE_DEVICES", None)
    with (folder / f"{name}.log").open("w") as log:
        words = [sys.executable, "-c", PROGRAM, json.dumps(asked)]
        return subprocess.Popen(words, env=around, stdout=log, stderr=log, cwd=folder)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_gpu_has_more_than_its_whole_of_two_drivers_trials(tmp_path: Path) -> None:
    """Halves fill both GPUs. A sweep of whole ones comes: the halves move together, and come back at its end."""
    halves = start(tmp_path, "halves", gpus_per_trial=0.5, trials=6, epochs=40)
    log = tmp_path / "halves.log"
    wait_for(lambda: len({line["gpu"] for line in diaries(tmp_path / "halves")}) == 2, 120, log.read_text, every=0.1)
    whole = start(tmp_path, "whole", gpus_per_trial=1.0, trials=1, epochs=10)
    assert whole.wait(120) == 0, (tmp_path / "whole.log").read_text()
    assert halves.wait(150) == 0, log.read_text()
    lines = [line | {"share": 0.5} for line in diaries(tmp_path / "halves")]
    lines += [line | {"share": 1.0} for line in diaries(tmp_path / "whole")]
    assert {line["gpu"] for line in lines} == set(GPUS)
    for line in lines:
        beside = [one for one in lines if one["gpu"] == line["gpu"] and one["start"] <= line["start"] < one["end"]]
        assert sum(one["share"] for one in beside) <= 1, beside
    for name in ("halves", "whole"):
        history = SweepHistory.load(tmp_path / name / "journal.jsonl")
        assert {trial.state for trial in history.trials.values()} == {"done"}


def test_an_inline_sweep_trains_on_the_gpu_that_is_free(
    sweep: Callable[..., SweepResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first GPU is another sweep's: a process would take it otherwise, as the first that CUDA shows."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("FER_SLOTS", str(tmp_path / "ledger"))
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(*map(Card, GPUS)))
    monkeypatch.setattr("cluster.gpus.torch_cuda", lambda: "13.0")
    places = GpuPlaces(GPUS)
    claim = Claim(id="other", sweep="other", gpus=1.0, all_gpus=frozenset(GPUS), cores=0.1, all_cores=frozenset({0}))
    other = SharedSlots(FileClaims(tmp_path / "ledger"), claim, 1, places=places)
    assert other.slots_for(0, 1) == 1
    assert places.take(0, 1.0) == ("GPU-a",)
    seen: list[str] = []

    def body(task: Task) -> Iterator[Message]:
        seen.extend(task.gpus)
        yield from good_body(task)

    result = sweep(trials=2, body=body, cpus_per_trial=0.5)
    other.close()
    assert result.history.count("done") == 2
    assert seen == ["GPU-b", "GPU-b"]
