"""Trials that share a process train to the bits of trials in processes of their own, and share no fault."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from fer_data import AugmentConfig, prepare
from fer_models import CompactResNetConfig, LeNetConfig, NetConfig, Recipe
from fer_models.training.tensor_file import read_tensors
from sweeps.config import TrialConfig
from sweeps.node.beside import node_folder
from sweeps.node.lanes import Lanes, TrialBody
from sweeps.node.memory_guard import reason_of_leaving
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from sweeps.trial.run_trial import run_trial
from tests.sweeps.node.lane_trials import BROKEN, CRASH, MEMORY, Unreadable, faulty, leaving, noting
from tracking.record.layout import TrialFolder

pytestmark = pytest.mark.timeout(180)

SMALL_RESNET = CompactResNetConfig(dropout=0.2, widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1))
NETS: list[NetConfig] = [LeNetConfig(dropout=0.5), SMALL_RESNET, LeNetConfig(dropout=0.2), SMALL_RESNET]
EPOCHS = 3
NUMBERS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")

Outcome = tuple[list[list[float]], dict[str, Tensor]]
"""The numbers of each epoch, and the state after the last one."""


@pytest.fixture(scope="module")
def faces(tiny_csv: Path) -> Path:
    return prepare(tiny_csv)


@pytest.fixture
def lanes() -> Iterator[Callable[..., Lanes]]:
    """Lanes of one run of a sweep; their process has to end with their last connection."""
    sweep = uuid.uuid4().hex[:12]
    yield lambda most, body=noting: Lanes(body, most, sweep)
    from sweeps.node.lanes import _idle

    for key in [key for key in _idle if key[0] == sweep]:
        for connection in _idle.pop(key):
            connection.close()
    end = time.monotonic() + 20
    with node_folder(sweep) as folder:
        place = folder
    while place.exists():
        assert time.monotonic() < end, "the process of the lanes is still there"
        time.sleep(0.05)


def task(root: Path, faces: Path, number: int, **more: Any) -> Task:
    recipe = Recipe(lr=more.pop("lr", 0.01), momentum=0.9, batch_size=8, ema_decay=0.9, label_smoothing=0.1)
    varied = AugmentConfig(flip=0.5, rotate_deg=10, shift=0.1, noise=5, mixup=0.2)
    folder = root / f"{number:04d}"
    config = TrialConfig(net=NETS[number % 4], recipe=recipe, augment=varied)
    return Task(trial=number, attempt=more.pop("attempt", 0), folder=str(folder), config=config, seed=number, epochs=EPOCHS,
                faces=str(faces), figures=False, **more)  # fmt: skip


def outcome(task: Task, messages: list[Message]) -> Outcome:
    end = messages[-1]
    assert isinstance(end, TrialEnd)
    assert end.state == "ended", end.reason
    reports = {message.epoch: message for message in messages if isinstance(message, EpochReport)}  # some come again
    assert list(reports) == list(range(1, EPOCHS + 1))
    numbers = [[report.metrics[name] for name in NUMBERS] for report in reports.values()]
    return numbers, read_tensors(TrialFolder(Path(task.folder)).last)[0]


def assert_equal(found: Outcome, expected: Outcome) -> None:
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(found[1][name], expected[1][name]) for name in expected[1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> list[Outcome]:
    """Of the four trials, one after another in this process."""
    tasks = [task(tmp_path_factory.mktemp("alone"), faces, number) for number in range(4)]
    return [outcome(one, list(run_trial(one))) for one in tasks]


def together(body: TrialBody, tasks: list[Task]) -> list[list[Message] | BaseException]:
    """The messages of trials that all begin before one of them gets on; or the error in place of them."""
    barrier = Barrier(len(tasks))

    def run(task: Task) -> list[Message] | BaseException:
        messages = body(task)
        try:
            first = next(messages)
            barrier.wait(60)
            return [first, *messages]
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(tasks)) as workers:
        return list(workers.map(run, tasks))


def processes(root: Path) -> list[int]:
    """The process of every attempt, trial by trial."""
    return [int(line) for path in sorted(root.glob("*.pids")) for line in path.read_text().split()]


def all_outcomes(tasks: list[Task], found: list[list[Message] | BaseException]) -> list[Outcome]:
    assert all(isinstance(messages, list) for messages in found), found
    return [outcome(one, messages) for one, messages in zip(tasks, found, strict=True) if isinstance(messages, list)]


@pytest.mark.parametrize(
    "order",
    [[0, 1], *(pytest.param(others, marks=pytest.mark.long) for others in ([1], [0, 1, 2, 3], [3, 2, 1, 0]))],
    ids=str,
)
def test_a_lane_trains_to_the_bits_of_a_process_of_its_own(
    order: list[int], lanes: Callable[..., Lanes], tmp_path: Path, faces: Path, alone: list[Outcome]
) -> None:
    tasks = [task(tmp_path, faces, number) for number in order]
    found = all_outcomes(tasks, together(lanes(4), tasks))
    for number, one in zip(order, found, strict=True):
        assert_equal(one, alone[number])
    assert len(set(processes(tmp_path))) == 1
    assert os.getpid() not in processes(tmp_path)


@pytest.mark.long
def test_more_trials_than_lanes_have_a_process_more(lanes: Callable[..., Lanes], tmp_path: Path, faces: Path) -> None:
    tasks = [task(tmp_path, faces, number) for number in (0, 2, 4)]
    all_outcomes(tasks, together(lanes(2), tasks))
    assert len(set(processes(tmp_path))) == 2


@pytest.mark.long
def test_faults_of_a_trial_are_its_own(
    lanes: Callable[..., Lanes], tmp_path: Path, faces: Path, alone: list[Outcome]
) -> None:
    """One diverges, one has a fault in its net, one runs out of memory once and is trained again where it is."""
    tasks = [
        task(tmp_path, faces, 0),
        task(tmp_path, faces, 4, lr=1e30),
        task(tmp_path, faces, 6, lr=CRASH),
        task(tmp_path, faces, 8, lr=MEMORY),
    ]
    found = together(lanes(4, faulty), tasks)
    assert all(isinstance(messages, list) for messages in found), found
    ends = [messages[-1] for messages in found if isinstance(messages, list)]
    assert [end.state for end in ends if isinstance(end, TrialEnd)] == ["ended", "failed", "failed", "ended"]
    assert [end.diverged for end in ends if isinstance(end, TrialEnd)] == [False, True, False, False]
    assert "a fault of the net" in (tmp_path / "0006/error.txt").read_text()
    assert [path.parent.name for path in tmp_path.glob("*/error.txt")] == ["0006"]
    assert len(set(processes(tmp_path))) == 1
    assert_equal(outcome(tasks[0], found[0]), alone[0])  # type: ignore[arg-type]
    outcome(tasks[3], found[3])  # type: ignore[arg-type]


def test_a_body_that_ends_its_thread_is_not_waited_for(
    lanes: Callable[..., Lanes], tmp_path: Path, faces: Path
) -> None:
    with pytest.raises(SystemExit, match="trial 0 leaves"):
        list(lanes(2, leaving)(task(tmp_path, faces, 0)))


def test_an_order_that_the_process_cannot_read_does_not_keep_it(
    lanes: Callable[..., Lanes], tmp_path: Path, faces: Path
) -> None:
    """As of a body whose module the process does not find; the fixture waits for its end."""
    with pytest.raises(ChildProcessError, match="ended before it began the trial"):
        next(lanes(2, Unreadable())(task(tmp_path, faces, 0)))


@pytest.mark.long
def test_one_pauses_and_continues_and_the_others_do_not_notice(
    lanes: Callable[..., Lanes], tmp_path: Path, faces: Path, alone: list[Outcome]
) -> None:
    body, tasks = lanes(4), [task(tmp_path, faces, number) for number in (0, 1)]
    messages = [body(one) for one in tasks]
    first = [next(one) for one in messages]
    messages[0].close()  # type: ignore[attr-defined]
    second = next(messages[1])
    continued = tasks[0].model_copy(update={"attempt": 1})
    assert_equal(outcome(continued, list(body(continued))), alone[0])
    assert_equal(outcome(tasks[1], [first[1], second, *messages[1]]), alone[1])
    assert len(set(processes(tmp_path))) == 1


@pytest.mark.long
def test_a_killed_process_costs_no_epoch_that_was_reported_and_its_trials_come_back_in_halves(
    lanes: Callable[..., Lanes], tmp_path: Path, faces: Path, alone: list[Outcome]
) -> None:
    body, tasks = lanes(4), [task(tmp_path, faces, number) for number in range(4)]
    messages = [body(one) for one in tasks]
    for count, one in enumerate(messages):
        for _ in range(1 + count % 2):
            next(one)
    (host,) = set(processes(tmp_path))
    os.kill(host, signal.SIGKILL)
    for one in messages:
        with pytest.raises(ChildProcessError, match="shared with others has ended"):
            list(one)
    again = [one.model_copy(update={"attempt": 1, "deaths": 1}) for one in tasks]
    found = together(body, again)
    for one, expected in zip(all_outcomes(again, found), alone, strict=True):
        assert_equal(one, expected)
    assert [path.read_text().split()[0] for path in tmp_path.glob("*.pids")] == [str(host)] * 4
    after = [path.read_text().split()[1] for path in sorted(tmp_path.glob("*.pids"))]
    assert len(set(after)) == 2
    assert sorted(after.count(pid) for pid in set(after)) == [2, 2]


@pytest.mark.long
def test_a_broken_gpu_ends_the_process_and_says_to_each_trial_which_one_it_was(
    lanes: Callable[..., Lanes], tmp_path: Path, faces: Path, alone: list[Outcome]
) -> None:
    tasks = [task(tmp_path, faces, 0), task(tmp_path, faces, 4, lr=BROKEN)]
    found = together(lanes(4, faulty), tasks)
    assert any(isinstance(one, ChildProcessError) for one in found)
    for one in tasks:
        assert "in trial 4: AcceleratorError: CUDA error: device-side assert" in str(reason_of_leaving(one))
    again = [one.model_copy(update={"attempt": 1, "deaths": 2}) for one in tasks]
    both = together(lanes(4), again)
    assert_equal(outcome(again[0], both[0]), alone[0])  # type: ignore[arg-type]
    outcome(again[1], both[1])  # type: ignore[arg-type]
    assert len(set(processes(tmp_path))) == 3, "each in a process of its own"


@pytest.mark.long
def test_a_trial_whose_worker_is_gone_leaves_within_a_batch(
    lanes: Callable[..., Lanes], tmp_path: Path, faces: Path
) -> None:
    """Here a thread plays the worker, and its connection is cut in the middle of an epoch."""
    long = task(tmp_path, faces, 0).model_copy(update={"epochs": 10_000})
    body, other = lanes(2), task(tmp_path, faces, 2)
    messages, beside = body(long), body(other)
    next(messages)
    next(beside)
    (host,) = set(processes(tmp_path))
    before = psutil.Process(host).num_threads()
    connection = messages.gi_frame.f_locals["process"]  # type: ignore[attr-defined]
    connection.close()
    end = time.monotonic() + 30
    while psutil.Process(host).num_threads() >= before:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert [message.epoch for message in beside if isinstance(message, EpochReport)] == [2, 3]
    with pytest.raises(ChildProcessError):
        next(messages)
