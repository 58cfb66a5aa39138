"""Errors of a GPU, raised by hand in trials on cores: what happens to them, their neighbours and who comes next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sweeps import SweepResult
from sweeps.errors import WorkerMustLeave
from sweeps.trial.gpu.faults import is_broken_gpu, is_out_of_memory
from sweeps.trial.gpu.memory import CONTEXT_BYTES, GpuMemory, others_exceed_their_share
from sweeps.trial.messages import MICRO_BATCHES, Message, Task
from tests import ROOT
from tests.sweeps.fake_trials import config, good_body
from tests.sweeps.trial.gpu_fault_trials import ALWAYS, ASSERTED, BATCH, CALM, CUBLAS, CUDNN, ONCE, WHOLE_BATCHES
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.layout import SweepFolder

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

GIB = 1 << 30


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> SweepFolder:
    """The sweep of `gpu_fault_trials.py` on real Ray, two trials at once."""
    folder = tmp_path_factory.mktemp("sweep")
    command = [sys.executable, "-m", "tests.sweeps.trial.gpu_fault_trials", str(folder), str(tiny_csv)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, timeout=280, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return SweepFolder(folder / "faults")


@pytest.fixture(scope="module")
def trials(swept: SweepFolder) -> dict[int, TrialHistory]:
    return SweepHistory.load(swept.journal).trials


@pytest.fixture(scope="module")
def diary(swept: SweepFolder) -> list[tuple[int, int]]:
    """(trial, process) of every attempt, in order."""
    lines = (swept.root / "diary.jsonl").read_text().splitlines()
    return [(trial, pid) for trial, pid in map(json.loads, lines)]


def test_only_a_trial_that_never_fits_fails(trials: dict[int, TrialHistory]) -> None:
    assert {number: trial.state for number, trial in trials.items()} == {
        **dict.fromkeys(range(7), "done"),
        ALWAYS: "failed",
    }


def test_out_of_memory_once_is_trained_again_in_place(trials: dict[int, TrialHistory]) -> None:
    trial = trials[ONCE]
    assert not trial.attempts
    assert trial.end is not None
    assert trial.end.note is None
    assert [epoch.epoch for epoch in trial.epochs] == [1, 2, 3]


def test_out_of_memory_twice_halves_the_batches_and_says_so(trials: dict[int, TrialHistory]) -> None:
    trial = trials[WHOLE_BATCHES]
    assert not trial.attempts
    assert [epoch.metrics.get(MICRO_BATCHES) for epoch in trial.epochs] == [None, 2, 2]
    assert trial.end is not None
    assert str(trial.end.note).startswith(f"from epoch 2 on each batch of {BATCH} is computed in parts of {BATCH // 2}")
    assert "batch norm's statistics" in str(trial.end.note)
    assert "CUBLAS_STATUS_ALLOC_FAILED" in str(trial.end.note)


def test_what_does_not_fit_in_halves_fails_with_the_sizes(trials: dict[int, TrialHistory]) -> None:
    trial = trials[ALWAYS]
    assert not trial.attempts
    assert trial.end is not None
    assert f"epoch 2 in parts of {BATCH // 2} of its batches of {BATCH}: cuDNN error: CUDNN_STATUS_ALLOC_FAILED" in str(
        trial.end.reason
    )
    assert "smaller batch_size" in str(trial.end.reason)


@pytest.mark.parametrize(
    ("number", "said"),
    [(ASSERTED, "device-side assert"), (CUBLAS, "CUBLAS_STATUS_EXECUTION"), (CUDNN, "CUDNN_STATUS_EXECUTION")],
)
def test_a_broken_gpu_costs_its_process_and_one_attempt(
    trials: dict[int, TrialHistory], diary: list[tuple[int, int]], number: int, said: str
) -> None:
    (attempt,) = trials[number].attempts
    assert said in attempt.reason
    assert "traceback in" in attempt.reason
    first, second = [place for place, (trial, _) in enumerate(diary) if trial == number]
    left = diary[first][1]
    assert diary[second][1] != left
    assert left not in [pid for _, pid in diary[first + 1 :]], "no other trial begins in that process"
    assert [epoch.epoch for epoch in trials[number].epochs] == [1, 2, 3]


def test_neighbours_and_who_comes_next_are_untouched(
    trials: dict[int, TrialHistory], diary: list[tuple[int, int]]
) -> None:
    assert not any(trials[number].attempts for number in (ONCE, WHOLE_BATCHES, ALWAYS, CALM))
    assert len({pid for _, pid in diary}) < len(diary) - 3, "processes are used again, but for the three broken ones"


def test_in_this_process_a_broken_gpu_stops_the_sweep_and_a_resume_continues_it(
    sweep: Callable[..., SweepResult],
) -> None:
    def broken(task: Task) -> Iterator[Message]:
        for message in good_body(task):
            yield message
            if task.trial == 0:
                raise WorkerMustLeave("AcceleratorError: CUDA error: device-side assert triggered")

    stopped = sweep(body=broken, trials=2)
    assert stopped.exit_code == 1
    assert "trial 0: AcceleratorError" in stopped.faults[0]
    assert [trial.state for trial in stopped] == ["stopped"]
    assert [trial.state for trial in sweep(trials=2, resume=True)] == ["done"] * 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "memory"),
        (torch.AcceleratorError("CUDA error: out of memory"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "memory"),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "broken"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "broken"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), "broken"),
        (RuntimeError("No CUDA GPUs are available"), "broken"),
        (RuntimeError("Expected all tensors to be on the same device, cpu and cuda:0"), "neither"),
        (ValueError("CUDA error"), "neither"),
    ],
)
def test_kinds_of_errors(error: Exception, kind: str) -> None:
    try:
        raise RuntimeError("leaving the block failed as well") from error
    except RuntimeError as wrapped:
        for seen in (error, wrapped):
            assert is_out_of_memory(seen) == (kind == "memory")
            assert is_broken_gpu(seen) or kind != "broken"


def test_trials_that_share_a_process_may_use_their_shares_together(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    task = Task(trial=0, attempt=0, folder="/x", config=config(), seed=0, epochs=1, faces="/y", device="cuda",
                gpu_share=0.25)  # fmt: skip
    with GpuMemory(task), GpuMemory(task):
        pass
    context = CONTEXT_BYTES / (80 * GIB)
    assert limits == pytest.approx([0.25 - context, 0.5 - context, 0.25 - context])


def test_who_took_the_memory() -> None:
    assert not others_exceed_their_share(free_bytes=0, total_bytes=16 * GIB, own_bytes=8 * GIB, own_share=0.5)
    assert others_exceed_their_share(free_bytes=0, total_bytes=16 * GIB, own_bytes=4 * GIB, own_share=0.5)
    assert others_exceed_their_share(free_bytes=0, total_bytes=16 * GIB, own_bytes=12 * GIB, own_share=1.0)
    assert not others_exceed_their_share(free_bytes=3 * GIB, total_bytes=16 * GIB, own_bytes=12 * GIB, own_share=1.0)
