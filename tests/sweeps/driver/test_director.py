import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from sweeps import SweepResult, TrialConfig
from sweeps.driver.runner import InlineRunner
from sweeps.fixed_space import fix_settings
from sweeps.search.seeds import derive_seed
from sweeps.trial.messages import EpochReport, Message, Preparing, Task
from tests.sweeps.fake_trials import (
    SPACE,
    ended,
    good_body,
    metrics,
    only_sampled,
    open_desk,
    report,
    scripted_body,
    spec,
    take_all,
    told,
    verdict_stands,
    with_reports_of,
)
from tracking.errors import TrackingError
from tracking.record.events import Event
from tracking.record.history import SweepHistory
from tracking.record.journal import read
from tracking.record.layout import SweepFolder

Sweep = Callable[..., SweepResult]


def test_events_stand_in_the_order_they_happened(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", with_reports_of(1), spec(trials=4, max_epochs=2))
    InlineRunner().run(desk.director, scripted_body({0: [0.5], 1: [0.6], 2: [0.1, 0.2], 3: [0.7, 0.8]}))
    assert desk.story() == [
        ("trial", 0), ("epoch", 0, 1), ("end", 0, "done"),
        ("trial", 1), ("epoch", 1, 1), ("end", 1, "done"),
        ("trial", 2), ("epoch", 2, 1), ("verdict", 2), ("end", 2, "pruned"),
        ("trial", 3), ("epoch", 3, 1), ("epoch", 3, 2), ("end", 3, "done"),
    ]  # fmt: skip
    assert desk.director.exhausted
    assert not desk.director.busy


def test_baselines_come_first_then_the_samplers(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", with_reports_of(2), spec(trials=3, max_epochs=3))
    tasks = [desk.director.next_task() for _ in range(3)]
    assert desk.director.next_task() is None
    assert [task.trial for task in tasks if task] == [0, 1, 2]
    assert [task.epochs for task in tasks if task] == [2, 2, 3]
    assert [task.config for task in tasks[:2] if task] == [baseline.config for baseline in SPACE.baselines]
    started = [trial.started for trial in desk.director.history.trials.values()]
    assert [trial.baseline for trial in started] == ["first report", "second report", None]
    assert [trial.seed for trial in started] == [derive_seed(7, trial.config_id) for trial in started]
    for task in tasks:
        assert task is not None
        assert json.loads((Path(task.folder) / "config.json").read_text()) == task.config.model_dump(mode="json")


def test_fewer_trials_than_baselines_are_the_first_of_them(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", asked=spec(trials=1))
    InlineRunner().run(desk.director, good_body)
    assert [trial.started.baseline for trial in desk.director.history.trials.values()] == ["first report"]


def test_what_an_epoch_said_stands_in_the_journal(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", asked=spec(trials=1))
    task = desk.task()
    assert take_all(desk, task, [0.3, 0.6, 0.6]) == [True, True, True]
    assert desk.director.take(0, ended(task)) is False
    trial = SweepHistory.load(desk.folder.journal).trials[0]
    assert [epoch.metrics for epoch in trial.epochs] == [metrics(0.3), metrics(0.6), metrics(0.6)]
    assert trial.epochs[1].iterations == ((20, 1.0, 0.1),)
    assert trial.end is not None
    # The earlier of two equal epochs is the best.
    assert trial.end.best == {f"best_{name}": value for name, value in metrics(0.6).items()} | {"best_epoch": 2}
    assert trial.end.epochs == 3


def test_listeners_hear_of_an_event_when_it_is_on_disk(tmp_path: Path) -> None:
    heard: list[tuple[Any, ...]] = []
    journal = SweepFolder(tmp_path / "night").journal

    def listen(event: Event, history: SweepHistory) -> None:
        heard.append(told(event))
        assert list(read(journal))[-1] == event
        assert SweepHistory.load(journal) == history

    desk = open_desk(tmp_path / "night", listeners=(listen,))
    InlineRunner().run(desk.director, good_body)
    assert heard == desk.story()


def test_what_a_trial_prepares_is_shown_and_not_recorded(tmp_path: Path) -> None:
    shown: list[tuple[int, str]] = []
    desk = open_desk(
        tmp_path / "night", asked=spec(trials=1), on_preparing=lambda trial, what: shown.append((trial.number, what))
    )
    task = desk.task()
    before = desk.story()
    assert desk.director.take(0, Preparing(attempt=task.attempt, what="features: 512 of 4,200 faces")) is True
    assert shown == [(0, "features: 512 of 4,200 faces")]
    assert desk.story() == before
    desk.director.request_stop("stopped by SIGINT")
    assert desk.director.take(0, Preparing(attempt=task.attempt, what="features: 1,024 of 4,200 faces")) is False
    assert desk.director.history.trials[0].state == "stopped", "a trial is stopped before its first epoch too"


def test_settings_and_precision_are_resolved_before_the_trial_is_recorded(tmp_path: Path) -> None:
    def resolve(config: TrialConfig) -> TrialConfig:
        return config.model_copy(update={"precision": "bf16", "memory_format": "channels_last"})

    space = fix_settings(SPACE, {"recipe.batch_size": 3, "recipe.lr": 0.5}, seed=7)
    desk = open_desk(tmp_path / "night", space, spec(trials=3), resolve=resolve)
    for task in iter(desk.director.next_task, None):
        assert (task.config.recipe.batch_size, task.config.recipe.lr) == (3, 0.5)
        assert (task.config.precision, task.config.memory_format) == ("bf16", "channels_last")
        started = desk.director.history.trials[task.trial].started
        assert started.config == task.config.model_dump(mode="json")
        assert started.config_id == task.config.id


# Pruning


def test_a_verdict_is_told_to_the_worker_through_its_folder(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", only_sampled())
    first, second = desk.director.next_task(), desk.director.next_task()
    assert first is not None
    assert second is not None
    assert desk.director.take(0, report(first, 1, 0.6))
    assert not verdict_stands(first)
    assert desk.director.take(1, report(second, 1, 0.5)), "the worker winds up by itself"
    assert verdict_stands(second)
    verdict = json.loads(desk.folder.trial(1).verdict.read_text())
    assert verdict == {"state": "pruned", "reason": "stopped at epoch 1: 0.5000 under the cut 0.6000, rank 2 of 2"}
    desk.director.take(1, ended(second))
    trial = desk.director.history.trials[1]
    assert (trial.state, trial.end and trial.end.reason) == ("pruned", verdict["reason"])


def test_a_trial_at_its_last_epoch_is_done_rather_than_pruned(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", only_sampled(first_rung_epochs=3), spec(trials=2, max_epochs=3))
    InlineRunner().run(desk.director, scripted_body({0: [0.9, 0.9, 0.9], 1: [0.1, 0.1, 0.1]}))
    assert [trial.state for trial in desk.director.history.trials.values()] == ["done", "done"]


def test_an_epoch_after_a_verdict_that_was_seen_late_is_recorded(tmp_path: Path) -> None:
    """A worker that sees the verdict late (a network file system) has trained one epoch more, and kept its weights."""
    desk = open_desk(tmp_path / "night", only_sampled())
    first, second = desk.director.next_task(), desk.director.next_task()
    assert first is not None
    assert second is not None
    desk.director.take(0, report(first, 1, 0.6))
    desk.director.take(1, report(second, 1, 0.5))
    desk.director.take(1, report(second, 2, 0.7))
    desk.director.take(1, ended(second))
    trial = desk.director.history.trials[1]
    assert (trial.state, trial.last_epoch) == ("pruned", 2)
    assert trial.end is not None
    assert trial.end.best["best_epoch"] == 2
    again = open_desk(tmp_path / "night", only_sampled())
    assert again.director.history == desk.director.history


def test_a_pruned_trial_stays_pruned_when_the_sweep_is_stopped_before_it_wound_up(tmp_path: Path) -> None:
    asked = spec(trials=2)
    desk = open_desk(tmp_path / "night", only_sampled(), asked)
    first, second = desk.director.next_task(), desk.director.next_task()
    assert first is not None
    assert second is not None
    desk.director.take(0, report(first, 1, 0.6))
    desk.director.take(1, report(second, 1, 0.5))
    desk.director.request_stop("SIGTERM")
    desk.director.leave()
    again = open_desk(tmp_path / "night", only_sampled(), asked)
    InlineRunner().run(again.director, good_body)
    trial = SweepHistory.load(again.folder.journal).trials[1]
    assert (trial.state, trial.last_epoch) == ("pruned", 1)
    assert trial.end is not None
    assert trial.end.reason is not None
    assert "under the cut" in trial.end.reason


# Workers that die, and late words of dead ones


def test_a_dead_workers_trial_is_retried_three_times_and_then_has_failed(tmp_path: Path) -> None:
    attempts = []

    def body(task: Task) -> Iterator[Message]:
        if task.trial == 0:
            attempts.append(task.attempt)
            yield report(task, 1)
            raise OSError("the disk went away")
        yield from good_body(task)

    desk = open_desk(tmp_path / "night", asked=spec(trials=2))
    InlineRunner().run(desk.director, body)
    assert attempts == [0, 1, 2, 3]
    first, second = desk.director.history.trials.values()
    assert (first.state, second.state) == ("failed", "done")
    assert [(attempt.attempt, attempt.reason) for attempt in first.attempts] == [
        (number, "its worker died: OSError: the disk went away") for number in (1, 2, 3)
    ]
    assert [epoch.epoch for epoch in first.epochs] == [1]
    assert first.end is not None
    assert first.end.reason == "its worker died 4 times after epoch 1, last: OSError: the disk went away"
    assert desk.director.faults == [f"trial 0: {first.end.reason}"]


@pytest.mark.parametrize("deaths", [1, 3])
def test_a_trial_whose_worker_died_can_still_be_done(tmp_path: Path, deaths: int) -> None:
    def body(task: Task) -> Iterator[Message]:
        for message in good_body(task):
            yield message
            if isinstance(message, EpochReport) and message.epoch == 2 and task.attempt < deaths:
                raise OSError("gone")

    desk = open_desk(tmp_path / "night", asked=spec(trials=1))
    InlineRunner().run(desk.director, body)
    trial = desk.director.history.trials[0]
    assert trial.state == "done"
    assert [epoch.epoch for epoch in trial.epochs] == [1, 2, 3]
    assert len(trial.attempts) == deaths
    assert desk.director.faults == []


def test_a_trial_that_gets_on_may_lose_any_number_of_workers(tmp_path: Path) -> None:
    """As on machines that are taken away every hour: each attempt brings one epoch, and dies in the next."""

    def body(task: Task) -> Iterator[Message]:
        for message in good_body(task):
            yield message
            if isinstance(message, EpochReport) and message.epoch == task.attempt + 1:
                raise OSError("preempted")

    desk = open_desk(tmp_path / "night", asked=spec(trials=1, max_epochs=8, baseline_epochs=8))
    InlineRunner().run(desk.director, body)
    trial = desk.director.history.trials[0]
    assert (trial.state, len(trial.epochs), len(trial.attempts)) == ("done", 8, 8)


def test_all_workers_that_die_at_once_are_followed_in_their_order(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", asked=spec(trials=4))
    for _ in range(2):
        desk.director.next_task()
    desk.director.all_workers_died("the machine ran out of memory")
    tasks = [desk.director.next_task() for _ in range(3)]
    assert [(task.trial, task.attempt) for task in tasks if task] == [(0, 1), (1, 1), (2, 0)]
    reasons = [attempt.reason for attempt in desk.director.history.trials[1].attempts]
    assert reasons == ["its worker died: the machine ran out of memory"]


def test_a_retried_trial_comes_before_new_ones(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", asked=spec(trials=3))
    first, second = desk.director.next_task(), desk.director.next_task()
    assert first is not None
    assert second is not None
    desk.director.worker_died(0, "killed")
    assert desk.director.busy
    again = desk.task()
    assert (again.trial, again.attempt, again.folder, again.config, again.seed) == (
        0, 1, first.folder, first.config, first.seed,
    )  # fmt: skip
    third = desk.task()
    assert third.trial == 2


def test_what_the_director_raises_is_not_taken_for_a_workers_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk(tmp_path / "night")
    fault = OSError(errno.EIO, "Input/output error")

    def body(task: Task) -> Iterator[Message]:
        if task.attempt == 0:
            monkeypatch.setattr("tracking.record.journal._write_all", Mock(side_effect=[fault, None, None]))
        yield from good_body(task)

    with pytest.raises(TrackingError, match=r"journal\.jsonl: Input/output error"):
        InlineRunner().run(desk.director, body)
    assert desk.director.history.trials[0].attempts == []


def test_known_epochs_are_dropped(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", asked=spec(trials=1))
    task = desk.task()
    take_all(desk, task, [0.1, 0.2])
    desk.director.worker_died(0, "killed")
    again = desk.task()
    assert take_all(desk, again, [0.8, 0.9, 0.3]) == [True, True, True]
    epochs = SweepHistory.load(desk.folder.journal).trials[0].epochs
    assert [(epoch.epoch, epoch.metrics["val_accuracy"]) for epoch in epochs] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert sum(event.event == "epoch" for event in desk.events()) == 3


def test_a_dead_attempts_late_words_are_refused(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", asked=spec(trials=1))
    task = desk.task()
    desk.director.worker_died(0, "partitioned")
    assert desk.director.take(0, report(task, 1)) is False, "given up, its next attempt not out yet"
    again = desk.task()
    before = desk.folder.journal.read_bytes()
    assert desk.director.take(0, report(task, 1)) is False
    assert desk.director.take(0, ended(task)) is False
    assert desk.folder.journal.read_bytes() == before
    assert desk.director.take(0, report(again, 1)) is True
    desk.director.take(0, ended(again))
    before = desk.folder.journal.read_bytes()
    assert desk.director.take(0, report(again, 2)) is False, "the trial is over"
    desk.director.worker_died(0, "died after its last word")
    assert desk.folder.journal.read_bytes() == before
    assert desk.director.next_task() is None


def test_a_driver_that_leaves_keeps_no_trial_running(tmp_path: Path) -> None:
    """A trial that waits for a new worker is as stopped as those that have one."""
    desk = open_desk(tmp_path / "night", asked=spec(trials=3))
    for _ in range(2):
        desk.director.next_task()
    desk.director.worker_died(0, "killed")
    desk.director.request_stop("SIGTERM")
    desk.director.leave()
    history = SweepHistory.load(desk.folder.journal)
    assert [trial.state for trial in history.trials.values()] == ["stopped", "stopped"]
    assert [trial.number for trial in history.unfinished] == [0, 1]
