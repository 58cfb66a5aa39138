"""What every runner does: inline, simulated, on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps.driver.director import Director
from sweeps.driver.runner import InlineRunner, Runner
from sweeps.planning.resources import Slots
from sweeps.trial.messages import EpochReport, Message, Task
from tests.benchmarks.simulated import SimulatedRunner
from tests.journal_laws import check_trials
from tests.sweeps.fake_trials import Desk, good_body, only_sampled, open_desk, outcome, spec
from tracking.record.events import AttemptStarted, EpochDone, Event
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(300)  # Ray starts a worker for each that dies

SLOTS = Slots(node_cpus=(2,), gpus=0, cpus_per_trial=1.0, gpus_per_trial=0.0, count=2, room=2)
UNPRUNED = only_sampled(first_rung_epochs=100)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(params=["inline", "simulated", pytest.param("ray", marks=pytest.mark.long)])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    match request.param:
        case "inline":
            yield InlineRunner()
        case "simulated":
            yield SimulatedRunner(2, clock=lambda: 0.0)
        case "ray":
            request.getfixturevalue("ray_of_the_caller")
            from sweeps.driver.ray_runner import ray_runner

            with ray_runner(SLOTS) as on_ray:
                yield on_ray


def desk(root: Path, on_epoch: Callable[[Director, EpochDone], None] = lambda *_: None) -> Desk:
    """A sweep of four trials of three epochs; `on_epoch` sees each epoch that is recorded."""

    def listen(event: Event, _: SweepHistory) -> None:
        if isinstance(event, EpochDone):
            on_epoch(held.director, event)

    held = open_desk(root, UNPRUNED, spec(trials=4, max_epochs=3), listeners=(listen,))
    return held


def dying_once(task: Task) -> Iterator[Message]:
    """As `good_body`, but every first attempt loses its worker after an epoch."""
    for message in good_body(task):
        if task.attempt == 0 and isinstance(message, EpochReport) and message.epoch == 2:
            raise OSError("the machine is gone")
        yield message


def test_every_trial_runs_to_its_end(runner: Runner, tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    runner.run(held.director, good_body)
    check_trials(held.events())
    assert held.director.exhausted
    assert not held.director.busy
    found = outcome(held.folder.journal)
    assert {number: (trial["state"], len(trial["epochs"])) for number, trial in found.items()} == dict.fromkeys(
        range(4), ("done", 3)
    )


def test_a_worker_that_dies_brings_its_trial_back_as_a_task(runner: Runner, tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    runner.run(held.director, dying_once)
    events = held.events()
    check_trials(events)
    assert {event.trial: event.attempt for event in events if isinstance(event, AttemptStarted)} == dict.fromkeys(
        range(4), 1
    )
    assert all("the machine is gone" in event.reason for event in events if isinstance(event, AttemptStarted))
    assert {trial["state"] for trial in outcome(held.folder.journal).values()} == {"done"}


def test_a_trial_that_is_to_leave_does_no_further_work(runner: Runner, tmp_path: Path) -> None:
    def pause_the_first(director: Director, event: EpochDone) -> None:
        if (event.trial, event.epoch) == (0, 1):
            director.pause(0, "person")

    held = desk(tmp_path / "night", pause_the_first)
    runner.run(held.director, good_body)
    trials = held.director.history.trials
    assert (trials[0].state, trials[0].last_epoch) == ("paused", 1)
    assert (held.folder.trial(0).root / "checkpoint.json").read_text() == "1"
    assert {trials[number].state for number in (1, 2, 3)} == {"done"}


def test_a_sweep_that_is_stopped_continues_where_it_was(runner: Runner, tmp_path: Path) -> None:
    held = desk(tmp_path / "night", lambda director, event: director.request_stop("enough"))
    runner.run(held.director, good_body)
    held.director.leave()
    held.journal.close()
    assert {trial.state for trial in held.director.history.unfinished} == {"stopped"}
    again = desk(tmp_path / "night")
    runner.run(again.director, good_body)
    check_trials(again.events())
    assert {trial["state"] for trial in outcome(again.folder.journal).values()} == {"done"}


def test_what_the_director_raises_ends_the_run_and_is_raised(runner: Runner, tmp_path: Path) -> None:
    def refuse(director: Director, event: EpochDone) -> None:
        raise LookupError("the disk is full")

    held = desk(tmp_path / "night", refuse)
    with pytest.raises(LookupError, match="the disk is full"):
        runner.run(held.director, good_body)
