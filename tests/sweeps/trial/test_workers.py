"""One trial trained by several processes: the numbers of one process, and what is left when a process dies."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from fer_data import AugmentConfig, DataOptions, open_cached, prepare
from fer_models import CompactResNetConfig, LeNetConfig, NetConfig, Recipe
from fer_models.training.state import new_state
from fer_models.training.tensor_file import read_tensors
from sweeps.config import TrialConfig
from sweeps.trial.build_net import new_net
from sweeps.trial.epochs import Trained, trained_epochs
from sweeps.trial.failures import Failure
from sweeps.trial.gpu.faults import is_out_of_memory
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from sweeps.trial.run_trial import run_trial
from sweeps.trial.workers import _cause, epochs_of_workers
from tests import ROOT
from tracking.record.files import write_json
from tracking.record.layout import TrialFolder

SMALL_RESNET = CompactResNetConfig(dropout=0.2, widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1))

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_CACHE", str(tmp_path_factory.mktemp("cache")))
        return prepare(DataOptions(limit_train=315))


def task(folder: Path, faces: Path, net: NetConfig, workers: int, **recipe: object) -> Task:
    how = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "batch_size": 15} | recipe
    varied = AugmentConfig(flip=0.5, rotate_deg=10, shift=0.1, mixup=0.2)
    return Task(
        trial=0,
        attempt=0,
        folder=str(folder),
        config=TrialConfig(net=net, recipe=Recipe.model_validate(how), augment=varied),
        seed=5,
        epochs=1,
        faces=str(faces),
        workers=workers,
        figures=False,
    )


def trained(task: Task) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The metrics of the last epoch and the state after it."""
    *reports, end = run_trial(task)
    assert isinstance(end, TrialEnd)
    assert end.state == "ended", end.reason
    assert isinstance(reports[-1], EpochReport)
    return reports[-1].metrics, read_tensors(TrialFolder(Path(task.folder)).last)[0]


@pytest.mark.parametrize(
    ("net", "recipe"),
    [
        (LeNetConfig(dropout=0.3), {"ema_decay": 0.99, "clip_norm": 1.0}),
        # At larger rates one process whose weights begin 1e-7 apart ends 1e-2 apart: what is asked here is no more.
        pytest.param(
            SMALL_RESNET, {"class_weights": "balanced", "label_smoothing": 0.1, "lr": 1e-4}, marks=pytest.mark.long
        ),
    ],
    ids=["lenet", "compact_resnet"],
)
def test_several_workers_train_as_one(tmp_path: Path, faces: Path, net: NetConfig, recipe: dict[str, object]) -> None:
    alone, state = trained(task(tmp_path / "alone", faces, net, 1, **recipe))
    together, state_together = trained(task(tmp_path / "together", faces, net, 2, **recipe))
    assert state.keys() == state_together.keys()
    apart = {name: (state[name].double() - state_together[name].double()).abs().max().item() for name in state}
    assert max(apart.values()) <= 1e-5, max(apart, key=apart.__getitem__)
    for metric in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert together[metric] == pytest.approx(alone[metric], rel=1e-4)


@pytest.mark.long
def test_several_workers_capture_no_graphs(tmp_path: Path, faces: Path) -> None:
    """A graph can be made on a GPU only, so that a capture here would fail the trial or repeat a batch."""
    eager = task(tmp_path / "eager", faces, LeNetConfig(), 2)
    graphs = task(tmp_path / "graphs", faces, LeNetConfig(), 2).model_copy(update={"cuda_graphs": True})
    (_, expected), (_, found) = trained(eager), trained(graphs)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.long
def test_half_batches_of_several_workers_are_those_of_one(tmp_path: Path, faces: Path) -> None:
    recipe: dict[str, object] = {"class_weights": "balanced", "lr": 1e-4}
    states = []
    for workers, train in ((1, trained_epochs), (2, epochs_of_workers)):
        work = task(tmp_path, faces, SMALL_RESNET, workers, **recipe)
        opened = open_cached(faces)
        state = new_state(new_net(work.config, opened, work.seed), work.config.recipe)
        (epoch,) = train(work, faces, state, 2, lambda: False)
        assert isinstance(epoch, Trained)
        states.append(epoch.snapshot.tensors)
    apart = {name: (states[0][name].double() - states[1][name].double()).abs().max().item() for name in states[0]}
    assert max(apart.values()) <= 1e-5, max(apart, key=apart.__getitem__)


def test_what_a_worker_ran_out_of_is_known_to_its_trial() -> None:
    """As where leaving a block fails on a GPU that is out of memory: what the trial looks for is the context."""
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has ...")
        finally:
            raise RuntimeError("cuDNN error")
    except RuntimeError as error:
        failure = pickle.loads(pickle.dumps(Failure.of(error)))
    received = _cause(failure, {})
    assert is_out_of_memory(received)
    assert "in another process" in "".join(traceback.format_exception(received))


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if "sweeps.trial.worker" in child.cmdline()]


def after_first_epoch(task: Task) -> tuple[Iterator[Message], list[psutil.Process]]:
    messages = run_trial(task)
    first = next(messages)
    assert isinstance(first, EpochReport)
    workers = workers_of(psutil.Process())
    assert len(workers) == task.workers
    return messages, workers


def assert_ended(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_worker_is_a_lost_process_and_another_number_of_workers_continues(
    tmp_path: Path, faces: Path, lost: int
) -> None:
    long = task(tmp_path, faces, LeNetConfig(), 2).model_copy(update={"epochs": 200})
    messages, workers = after_first_epoch(long)
    workers[lost].send_signal(signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=f"worker {lost + 1} of 2 was ended by signal 9"):
        list(messages)
    assert_ended(workers)
    *reports, end = run_trial(long.model_copy(update={"attempt": 1, "workers": 1, "epochs": 4}))
    assert [report.epoch for report in reports if isinstance(report, EpochReport)] == [1, 2, 3, 4]
    assert isinstance(end, TrialEnd)
    assert end.state == "ended"


@pytest.mark.long
def test_workers_end_with_the_trial(tmp_path: Path, faces: Path) -> None:
    long = task(tmp_path, faces, LeNetConfig(), 3).model_copy(update={"epochs": 200})
    messages, workers = after_first_epoch(long)
    write_json(TrialFolder(tmp_path).verdict, {"verdict": "stop"})
    (end,) = (message for message in messages if isinstance(message, TrialEnd))
    assert end.state == "ended"
    assert_ended(workers)


@pytest.mark.slow
def test_workers_end_when_the_process_of_their_trial_is_killed(tmp_path: Path, faces: Path) -> None:
    long = task(tmp_path, faces, LeNetConfig(), 2).model_copy(update={"epochs": 200})
    program = "import sys; from sweeps.trial.messages import Task; from sweeps.trial.run_trial import run_trial\n"
    program += "for _ in run_trial(Task.model_validate_json(sys.argv[1])): print('epoch', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program, long.model_dump_json()],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        workers = workers_of(psutil.Process(running.pid))
        assert len(workers) == 2
        running.kill()
    assert_ended(workers)


@pytest.mark.long
def test_an_error_in_a_worker_is_the_trials(tmp_path: Path, faces: Path) -> None:
    diverging = task(tmp_path, faces, LeNetConfig(), 2, lr=1e6)
    (end,) = run_trial(diverging)
    assert isinstance(end, TrialEnd)
    assert end.diverged
    assert "train_loss is" in (end.reason or "")
