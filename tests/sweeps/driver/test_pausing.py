"""A trial that leaves its worker at a report and continues later, under its number, to the same bits."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fer_common.errors import UserError
from fer_models import LeNetConfig, Recipe
from fer_models.training.tensor_file import read_tensors, write_tensors
from sweeps import InputError, Space, SweepResult, TrialConfig, run_sweep
from sweeps.cli.arguments import options
from sweeps.cli.main import run_parser
from sweeps.driver.acts import Acts
from sweeps.driver.director import Attendant, Director
from sweeps.driver.kept_states import KeptStates
from sweeps.driver.runner import InlineRunner
from sweeps.trial.messages import EpochReport, Message, Task
from tests.benchmarks.simulated import SimulatedRunner
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import (
    Desk,
    ended,
    good_body,
    only_sampled,
    open_desk,
    outcome,
    report,
    scripted_body,
    spec,
)
from tracking.record.events import AttemptStarted, EpochDone, Event, TrialPaused, TrialUnpaused
from tracking.record.history import SweepHistory
from tracking.record.inbox import Request, post
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

SPACE = only_sampled(first_rung_epochs=9)  # nothing is pruned


def desk(root: Path, trials: int = 1, **more: object) -> Desk:
    return open_desk(root, SPACE, spec(trials=trials), **more)


def test_a_paused_trial_leaves_at_its_next_report_and_goes_on_from_there(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    first = held.task()
    assert held.director.take(0, report(first, 1))
    held.director.pause(0, "person", "ana")
    assert held.director.history.trials[0].state == "running", "until its next report"
    assert held.director.take(0, report(first, 2)) is False
    trial = held.director.history.trials[0]
    assert (trial.state, trial.is_over, held.director.out) == ("paused", False, [])
    assert held.director.exhausted, "a trial that a person paused keeps no driver"
    assert held.director.take(0, report(first, 3)) is False, "its worker has left it"
    held.director.unpause(0, "ben")
    again = held.task()
    assert again == first.model_copy(update={"attempt": 1, "recorded": again.recorded})
    assert [one.epoch for one in again.recorded] == [1, 2]
    held.director.take(0, report(again, 3))
    held.director.take(0, ended(again))
    assert held.director.history.trials[0].state == "done"
    found = [event for event in held.events() if isinstance(event, TrialPaused | TrialUnpaused | AttemptStarted)]
    assert [event.event for event in found] == ["paused", "unpaused", "attempt"]
    assert isinstance(found[0], TrialPaused)
    assert (found[0].epoch, found[0].text) == (2, "paused by ana")


def test_a_driver_leaves_a_trial_that_a_person_paused_and_the_next_one_too(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=2)
    held.director.pause(held.task().trial, "person")
    InlineRunner().run(held.director, good_body)  # trial 1; trial 0 has no worker that would report
    held.director.take(0, report_of(held, 0))
    again = desk(tmp_path / "night", trials=2)
    assert again.director.next_task() is None
    assert again.director.exhausted
    again.director.leave()
    assert again.director.stop_reason == "trial 0 paused"
    assert SweepHistory.load(again.folder.journal).trials[0].state == "paused"
    again.director.unpause(0)
    third = desk(tmp_path / "night", trials=2)
    assert third.task().trial == 0, "unpaused before the driver left: it waits for nothing but a slot"


def report_of(held: Desk, number: int) -> EpochReport:
    return report(held.director._hand_out(held.director.history.trials[number], 0), 1)


def test_a_trial_that_waits_for_a_worker_is_paused_at_once_and_a_dead_one_after_its_last_report(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=2)
    first, second = held.task(), held.task()
    held.director.take(0, report(first, 1))
    held.director.worker_died(0, "killed")
    held.director.pause(0, "person")
    held.director.pause(1, "person")
    held.director.worker_died(1, "killed")
    assert [(trial.number, trial.last_epoch) for trial in held.director.history.paused] == [(0, 1), (1, 0)]
    assert held.director.next_task() is None
    held.director.unpause(second.trial)
    assert held.task().trial == 1


def test_a_trial_at_its_last_epoch_or_given_up_ends_instead(tmp_path: Path) -> None:
    held = open_desk(tmp_path / "night", only_sampled(first_rung_epochs=1), spec(trials=2))
    first, second = held.task(), held.task()
    held.director.take(0, report(first, 1, 0.9))
    held.director.take(1, report(second, 1, 0.1))
    with pytest.raises(InputError, match="trial 1 is finishing already: stopped at epoch 1"):
        held.director.pause(1, "person")
    held.director.pause(0, "person")
    assert held.director.take(1, report(second, 2, 0.1)), "it winds up"
    held.director.unpause(0)
    held.director.take(0, report(first, 2, 0.9))
    held.director.pause(0, "person")
    assert held.director.take(0, report(first, 3, 0.9)), "it has trained all its epochs"


def test_a_person_may_pause_a_trial_that_is_about_to_move(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    first = held.task()
    held.director.move(0)
    held.director.pause(0, "person", "ana")
    held.director.move(0)
    with pytest.raises(InputError, match="trial 0 pauses at its next report already"):
        held.director.pause(0, "person", "ben")
    assert held.director.take(0, report(first, 1)) is False
    assert held.director.history.trials[0].reason == "paused by ana"
    assert held.director.next_task() is None, "it does not continue by itself"


def test_a_trial_that_is_about_to_move_is_not_paused(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    first = held.task()
    held.director.move(0)
    with pytest.raises(InputError, match="trial 0 is not paused; it is running"):
        held.director.unpause(0)
    assert held.director.take(0, report(first, 1)) is False, "it moves"
    assert held.task().trial == 0


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda d: d.pause(7, "person"), "no trial 7; there are 0 to 1"),
        (lambda d: d.pause(0, "person"), "trial 0 is over; it is done"),
        (lambda d: d.unpause(1), "trial 1 is not paused; it is running"),
        (
            lambda d: (d.pause(1, "person"), d.worker_died(1, "killed"), d.pause(1, "person")),
            "trial 1 is paused already",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, act: Callable[[Director], object], words: str) -> None:
    held = desk(tmp_path / "night", trials=2)
    first, _ = held.task(), held.task()
    held.director.take(0, report(first, 1))
    held.director.take(0, ended(first))
    with pytest.raises(InputError, match=words):
        act(held.director)


# Slots that are needed elsewhere


def test_over_its_limit_a_sweep_pauses_the_least_promising_and_takes_up_the_most_promising_first(
    tmp_path: Path,
) -> None:
    held = desk(tmp_path / "night", trials=4)
    tasks = [held.task() for _ in range(3)]
    for task, value in zip(tasks, (0.2, 0.9, 0.5), strict=True):
        held.director.take(task.trial, report(task, 1, value))
    held.director.limit(1, "share")
    assert held.director.next_task() is None, "no new trial beyond the limit"
    assert held.director.take(1, report(tasks[1], 2, 0.9))
    assert held.director.take(0, report(tasks[0], 2, 0.2)) is False
    assert held.director.take(2, report(tasks[2], 2, 0.5)) is False
    assert [trial.paused and trial.paused.reason for trial in held.director.history.paused] == ["share", "share"]
    assert not held.director.exhausted, "they continue by themselves"
    held.director.limit(3, "share")
    assert [held.task().trial for _ in range(2)] == [2, 0]
    again = [event for event in held.events() if isinstance(event, AttemptStarted)]
    assert [(event.trial, event.reason) for event in again] == [(2, "a slot is free"), (0, "a slot is free")]
    held.director.limit(None, "share")
    assert held.task().trial == 3


def test_a_limit_that_is_raised_in_time_pauses_nobody(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=2)
    tasks = [held.task() for _ in range(2)]
    held.director.limit(0, "share")
    held.director.limit(2, "share")
    assert all(held.director.take(task.trial, report(task, 1)) for task in tasks)


def test_slots_that_the_next_driver_has_take_up_what_was_paused_for_want_of_them(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=2)
    task = held.task()
    held.director.limit(0, "share")
    held.director.take(0, report(task, 1))
    again = desk(tmp_path / "night", trials=2)
    assert [again.task().trial for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("runner", [InlineRunner(), SimulatedRunner(2, clock=lambda: 0.0)], ids=["inline", "simulated"])
def test_a_sweep_whose_slots_come_and_go_ends_as_one_left_alone(tmp_path: Path, runner: object) -> None:
    """An attendant takes all slots away at one call of four and gives them back at another."""

    def restless() -> Attendant:
        chance = random.Random(3)
        return lambda director: director.limit(0 if chance.random() < 0.25 else None, "share")

    quiet = desk(tmp_path / "quiet", trials=3)
    InlineRunner().run(quiet.director, good_body)
    held = desk(tmp_path / "night", trials=3, attendants=(restless(),))
    runner.run(held.director, good_body)  # type: ignore[attr-defined]
    assert outcome(held.folder.journal) == outcome(quiet.folder.journal)
    assert any(isinstance(event, TrialPaused) for event in held.events())


def test_a_body_is_closed_when_its_trial_is_paused(tmp_path: Path) -> None:
    closed: list[int] = []

    def body(task: Task) -> Iterator[Message]:
        try:
            yield from scripted_body({0: [0.1, 0.2, 0.3]})(task)
        finally:
            closed.append(task.attempt)

    held = desk(tmp_path / "night", attendants=(lambda director: pause_once(director),))
    InlineRunner().run(held.director, body)
    assert closed == [0]
    assert held.director.history.trials[0].state == "paused"


def pause_once(director: Director) -> None:
    if director.out and not director.history.paused:
        director.pause(0, "person")


# Real training


def test_a_trial_paused_twice_comes_to_the_same_bits_as_an_unbroken_one(
    tiny_csv: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another terminal asks for a pause after the first and the third epoch; weights, state and journal are compared."""
    monkeypatch.setattr("sweeps.driver.acts._LOOK_SECONDS", 0.0)
    net = LeNetConfig()
    recipe = Recipe(lr=0.01, batch_size=8, ema_decay=0.9, label_smoothing=0.1)
    alone = Space(suggest=lambda trial: TrialConfig(net=net, recipe=recipe), max_epochs=5, trials=1, name="alone")

    def train(name: str, *, resume: bool = False, pause_after: int = 0) -> SweepResult:
        folder = SweepFolder(out / name)

        def ask(event: Event, _: SweepHistory) -> None:
            if isinstance(event, EpochDone) and event.epoch == pause_after:
                post(folder, Request(verb="pause", arguments={"trial": 0}))

        return run_sweep(alone, data=str(tiny_csv), name=name, out=out, runner="inline", figures=False, resume=resume,
                         listeners=[ask], **QUIET)  # fmt: skip

    unbroken = train("unbroken")
    for resume, epoch in ((False, 1), (True, 3)):
        paused = train("broken", resume=resume, pause_after=epoch)
        assert (paused[0].state, paused[0].last_epoch, paused.exit_code) == ("paused", epoch, 0)
        journal = Journal.open(paused.folder.journal)
        journal.append(TrialUnpaused(trial=0))
        journal.close()
    broken = train("broken", resume=True)
    assert [trial.state for trial in (unbroken[0], broken[0])] == ["done", "done"]
    assert len(broken[0].attempts) == 2
    timeless = [
        [
            {name: value for name, value in epoch.metrics.items() if "second" not in name and "system" not in name}
            for epoch in result[0].epochs
        ]
        for result in (unbroken, broken)
    ]
    assert timeless[0] == timeless[1]
    assert [epoch.epoch for epoch in broken[0].epochs] == [1, 2, 3, 4, 5], "no epoch is trained twice"
    files = [SweepFolder(out / name).trial(0) for name in ("unbroken", "broken")]
    weights = [read_tensors(one.best)[0] for one in files]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_states_beyond_the_bound_go_the_least_promising_first_and_their_trials_start_again(
    tmp_path: Path,
) -> None:
    warnings: list[str] = []
    folder = SweepFolder(tmp_path / "night")
    held = desk(tmp_path / "night", trials=3, listeners=(KeptStates(folder, 2500, warnings.append),))
    tasks = [held.task() for _ in range(3)]
    for task, value in zip(tasks, (0.5, 0.1, 0.9), strict=True):
        (Path(task.folder) / "last.safetensors").write_bytes(b"x" * 1000)
        held.director.pause(task.trial, "person")
        held.director.take(task.trial, report(task, 1, value))
    assert [folder.trial(number).last.exists() for number in range(3)] == [True, False, True]
    assert len(warnings) == 1
    assert "trial 1: its state is deleted" in warnings[0]


def test_states_of_trials_that_are_done_go_before_those_of_paused_ones(tmp_path: Path) -> None:
    warnings: list[str] = []
    folder = SweepFolder(tmp_path / "night")
    held = desk(tmp_path / "night", trials=3, listeners=(KeptStates(folder, 2500, warnings.append),))
    paused, *done = (held.task() for _ in range(3))
    (Path(paused.folder) / "last.safetensors").write_bytes(b"x" * 1000)
    held.director.pause(paused.trial, "person")
    held.director.take(paused.trial, report(paused, 1, 0.1))
    for task, value in zip(done, (0.9, 0.5), strict=True):
        (Path(task.folder) / "lasting").mkdir()
        (Path(task.folder) / "lasting/last.safetensors").write_bytes(b"x" * 1000)
        held.director.take(task.trial, report(task, 1, value))
        held.director.take(task.trial, ended(task))
    assert [path.parent.parent.name for path in folder.trials.glob("*/lasting/last.safetensors")] == ["0001"]
    assert folder.trial(0).last.exists()
    assert len(warnings) == 1
    assert "trial 2: its state is deleted" in warnings[0]
    assert "it cannot be extended" in warnings[0]


def test_a_fork_keeps_its_state_since_its_own_start_is_another_trials_state(tmp_path: Path) -> None:
    """Trained from scratch it would be another trial under the same number."""
    folder = SweepFolder(tmp_path / "night")
    held = desk(tmp_path / "night", trials=1, listeners=(KeptStates(folder, 0, lambda _: None),))
    source = held.task()
    write_tensors(folder.trial(0).last, {}, {"state": json.dumps({"epoch": 1})})
    held.director.take(0, report(source, 1))
    Acts(folder, SPACE, 1).perform(
        held.director, Request(verb="fork", arguments={"trial": 0, "settings": ["lr=0.03"]}, who="ana")
    )
    held.director.take(0, report(source, 2))
    held.director.take(0, ended(source))
    fork = held.task()
    assert folder.trial(1).last.exists()
    held.director.pause(1, "person")
    held.director.take(1, report(fork, 1))
    assert held.director.history.trials[1].state == "paused"
    assert folder.trial(1).last.exists()


@pytest.mark.parametrize(("text", "size"), [("20GiB", 20 << 30), ("1.5 MiB", 3 << 19)])
def test_a_size_with_its_unit(text: str, size: int) -> None:
    given = run_parser().parse_args(["lenet_space", "--keep-states", text])
    assert options(given).keep_states == size
    with pytest.raises(UserError, match="20GiB or 500MiB"):
        run_parser().parse_args(["lenet_space", "--keep-states", "20"])
