"""MPS on every node where trials share GPUs; a script stands where NVIDIA's control program stands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.node.beside import node_folder
from sweeps.node.mps import MpsError, join_mps, mps, obstacle
from tests.cluster.journal_laws import check_finished
from tests.cluster.processes import environment, python
from tests.cluster.quick_trials import diaries

pytestmark = pytest.mark.timeout(240)

Put = Callable[[str], Path]


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts the stand-in on PATH, with what it does at its start; returns where it notes its calls."""

    def put(start: str) -> Path:
        program, log = tmp_path / "bin/nvidia-cuda-mps-control", tmp_path / "calls"
        program.parent.mkdir()
        program.write_text(
            '#!/bin/sh\nif [ "$1" = -d ]; then '
            f'echo "start $CUDA_MPS_PIPE_DIRECTORY ${{CUDA_VISIBLE_DEVICES-all}}" >> {log}; {start}; '
            f"else cat >> {log}; fi\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        return log

    return put


def test_mps_runs_within_the_block(control: Put) -> None:
    log = control("exit 0")
    assert obstacle() is None
    with mps():
        folder = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        assert folder.is_dir()
        assert obstacle() == "it runs already"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert not folder.exists()
    assert log.read_text() == f"start {folder} all\nquit\n"


def test_mps_that_does_not_start_says_why(control: Put) -> None:
    control("echo 'Cannot find MPS control daemon process' >&2; exit 1")
    with pytest.raises(MpsError, match="Cannot find MPS control daemon process"), mps():
        pass


WORKER = """
import os, sys
from sweeps.node.mps import join_mps
print(join_mps(sys.argv[1]), os.environ.get("CUDA_MPS_PIPE_DIRECTORY"), flush=True)
input()
"""


class Worker:
    """A process that has joined, until its input is closed."""

    def __init__(self, sweep: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, sweep], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "1"},
        )  # fmt: skip
        assert self.process.stdout
        self.said, self.place = self.process.stdout.readline().split()

    def end(self) -> None:
        self.process.communicate("\n", timeout=30)


def gone(folder: Path) -> bool:
    end = time.monotonic() + 30
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return not folder.exists()


@pytest.mark.long
def test_the_first_worker_of_a_node_starts_it_and_it_ends_after_the_last(control: Put, tmp_path: Path) -> None:
    """Whichever worker ends first, and however."""
    log, sweep = control("exit 0"), uuid.uuid4().hex[:12]
    with node_folder(sweep) as folder:
        pass
    first, second = Worker(sweep), Worker(sweep)
    assert (first.said, first.place) == ("None", second.place)
    assert log.read_text() == f"start {first.place} all\n", "once, for every GPU"
    first.process.kill()
    first.process.wait()
    third = Worker(sweep)
    second.end()
    time.sleep(1.5)
    assert "quit" not in log.read_text()
    third.end()
    assert gone(folder)
    assert log.read_text() == f"start {first.place} all\nquit\n"


def test_a_worker_is_told_why_there_is_none(control: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = uuid.uuid4().hex[:12]
    began = f"MPS is not started on {socket.gethostname()}: "
    assert join_mps(sweep) == f"{began}nvidia-cuda-mps-control is not installed; trials on one GPU take turns"
    control("echo 'no permission' >&2; exit 1")
    assert join_mps(sweep) == f"{began}no permission; trials on one GPU take turns"
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/run/mps")
    assert join_mps(sweep) is None, "the node's own is used"
    with node_folder(sweep) as folder:
        assert list(folder.iterdir()) == []


CARD = """
import json, sys
from tests.stand_ins import Card, FakeNvml
sys.modules["pynvml"] = FakeNvml(Card("GPU-a"))
from tests.cluster.quick_trials import sweep
"""

HERE = CARD + "sys.exit(sweep(**json.loads(sys.argv[1])))"

TWO_NODES = (
    CARD
    + """
from ray.cluster_utils import Cluster
node = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80_000_000}
def around(name):
    return {"env_vars": {"TMPDIR": f"{sys.argv[2]}/{name}"}}
cluster = Cluster(initialize_head=True, head_node_args=node | around("a") | {"include_dashboard": False})
cluster.add_node(**node, **around("b"))
code = sweep(address=cluster.address, **json.loads(sys.argv[1]))
cluster.shutdown()
sys.exit(code)
"""
)


def swept(script: str, folder: Path, at_once: int, *more: str) -> tuple[set[str], str]:
    """The service of each epoch of a sweep whose trials share GPUs, and what the driver said."""
    (folder / "gather").write_text(str(at_once))
    asked = {"name": "shared", "out": str(folder), "tracking_uri": f"sqlite:///{folder}/mlflow.db", "device": "cuda",
             "gpus_per_trial": 0.5, "trials": at_once + 1, "epochs": 2}  # fmt: skip
    done = python(environment(folder), "-c", script, json.dumps(asked), *more, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    check_finished(folder / "shared", at_once + 1)
    return {line["mps"] for line in diaries(folder / "shared")}, done.stderr


@pytest.mark.long
def test_trials_that_share_a_gpu_of_this_machine_have_it(control: Put, tmp_path: Path) -> None:
    log = control("exit 0")
    places, said = swept(HERE, tmp_path, 2)
    (place,) = places
    assert "MPS" not in said
    assert gone(Path(place))
    assert log.read_text() == f"start {place} all\nquit\n"


@pytest.mark.slow
def test_each_node_of_a_cluster_has_its_own(control: Put, tmp_path: Path) -> None:
    """The nodes have folders for temporary files of their own, as machines do."""
    log = control("exit 0")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    places, said = swept(TWO_NODES, tmp_path, 4, str(tmp_path))
    assert sorted(Path(place).relative_to(tmp_path).parts[0] for place in places) == ["a", "b"]
    assert "MPS is not started" not in said
    assert all(gone(Path(place)) for place in places)
    assert sorted(log.read_text().splitlines()) == sorted([*(f"start {place} all" for place in places), "quit", "quit"])


@pytest.mark.slow
def test_a_node_without_it_is_named_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    places, said = swept(TWO_NODES, tmp_path, 4, str(tmp_path))
    assert places == {None}
    assert said.count(f"MPS is not started on {socket.gethostname()}: nvidia-cuda-mps-control is not installed") == 1
