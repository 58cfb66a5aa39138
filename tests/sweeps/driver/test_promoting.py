"""Trials pause at rungs, the best of those that wait continue, and an ended sweep leaves none that waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.driver.kept_states import KeptStates
from sweeps.driver.runner import InlineRunner
from sweeps.search.asha import Promoting
from sweeps.search.study import Study
from sweeps.serve.living import Living
from sweeps.space import Space
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.benchmarks.simulated import SimulatedRunner
from tests.sweeps.fake_trials import SPACE as BASELINES
from tests.sweeps.fake_trials import Desk, only_sampled, open_desk, outcome, report, scripted_body, spec
from tracking.record.events import (
    AttemptStarted,
    DriverStopped,
    EpochDone,
    TrialEnded,
    TrialPaused,
    TrialStarted,
    TrialUnpaused,
)
from tracking.record.history import SweepHistory

SPACE = replace(only_sampled(), pruner="promoting", sampler="qmc", reduction_factor=3)
"""Rungs after epochs 1 and 3, of 4."""

VALUES = [0.2, 0.5, 0.3, 0.9, 0.1, 0.4, 0.8, 0.25, 0.6]


def curves(values: list[float] = VALUES) -> dict[int, list[float]]:
    return {number: [value + 0.01 * epoch for epoch in range(4)] for number, value in enumerate(values)}


def desk(root: Path, trials: int = len(VALUES), **more: object) -> Desk:
    return open_desk(root, SPACE, spec(trials=trials, max_epochs=4), **more)


def swept(root: Path) -> Desk:
    held = desk(root)
    InlineRunner().run(held.director, scripted_body(curves()))
    for trial in held.director.history.paused:
        held.folder.trial(trial.number).create().last.write_bytes(b"state")
    held.director.leave()
    return held


def test_the_best_of_those_that_wait_continue_and_the_rest_are_pruned_at_the_end(tmp_path: Path) -> None:
    held = swept(tmp_path / "night")
    trials = held.director.history.trials
    assert {number: trial.last_epoch for number, trial in trials.items()} == {
        0: 1, 1: 3, 2: 1, 3: 4, 4: 1, 5: 1, 6: 4, 7: 1, 8: 3
    }  # fmt: skip
    assert trials[3].state == "done"
    assert not held.director.history.paused
    assert held.director.stop_reason is None
    assert not any(held.folder.trial(number).last.exists() for number in trials), "no state is left"
    assert trials[0].reason == "stopped at epoch 1: not promoted, rank 8 of 9"
    assert trials[8].reason == "stopped at epoch 3: not promoted, rank 3 of 4"
    promoted = [event for event in held.events() if isinstance(event, AttemptStarted)]
    assert [(event.trial, event.reason) for event in promoted] == [
        (1, "promoted"), (3, "promoted"), (6, "promoted")
    ], "a trial that is the next to continue when it comes to its rung keeps its worker"  # fmt: skip


def test_a_driver_killed_anywhere_comes_to_the_same_sweep(tmp_path: Path) -> None:
    whole = swept(tmp_path / "whole")
    lines = whole.folder.journal.read_text().splitlines(keepends=True)
    for cut in range(2, len(lines), 3):
        root = tmp_path / str(cut)
        torn = desk(root)
        torn.journal.close()
        torn.folder.journal.write_text("".join(lines[:cut]))
        again = swept(root)
        assert not again.director.history.unfinished, cut
        assert {n: t.last_epoch for n, t in again.director.history.trials.items()} == {
            n: t.last_epoch for n, t in whole.director.history.trials.items()
        }, cut
        assert outcome(again.folder.journal) == outcome(whole.folder.journal), cut


def test_the_sampler_learns_from_trials_that_wait_and_again_after_a_resume(tmp_path: Path) -> None:
    space = replace(SPACE, sampler="tpe")
    held = open_desk(tmp_path / "night", space, spec(trials=30, max_epochs=4))
    for _ in range(16):
        task = held.task()
        held.director.take(
            task.trial, report(task, task.recorded[-1].epoch + 1 if task.recorded else 1, 0.5 - 0.01 * task.trial)
        )
    events = held.events()
    at = max(place for place, event in enumerate(events) if isinstance(event, TrialStarted))
    rebuilt = Study(tmp_path / "again.log", space, spec().seed, events[:at])
    started = events[at]
    assert isinstance(started, TrialStarted)
    assert started.trial > 10, "beyond TPE's first trials, which are drawn at random"
    assert rebuilt.propose(started.trial).params == started.params
    untaught = [event for event in events[:at] if not isinstance(event, EpochDone | TrialPaused)]
    assert (
        Study(tmp_path / "untaught.log", space, spec().seed, untaught).propose(started.trial).params != started.params
    )


def test_several_workers_end_the_sweep_with_a_complete_trial_and_none_that_waits(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    SimulatedRunner(4, clock=lambda: 0.0).run(held.director, scripted_body(curves()))
    held.director.leave()
    history = SweepHistory.load(held.folder.journal)
    assert not history.unfinished
    assert history.trials[3].state == "done"
    assert history.count("pruned") >= 5


def test_a_trial_without_rivals_is_complete(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=1)
    InlineRunner().run(held.director, scripted_body(curves()))
    assert held.director.history.trials[0].state == "done"
    assert not any(isinstance(event, TrialPaused) for event in held.events())


def test_a_stopped_driver_leaves_trials_waiting_for_the_next_one(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    task = held.task()
    held.director.take(0, report(task, 1, 0.3))
    (waiting,) = held.director.history.paused
    assert waiting.paused is not None
    assert waiting.paused.reason == "rung"
    assert held.director.history.reason_of(waiting) == "waits at the rung after epoch 1, rank 1 of 1"
    held.director.request_stop("a signal")
    held.director.leave()
    assert [trial.number for trial in desk(tmp_path / "night").director.history.paused] == [0]


def test_a_trial_that_passed_its_rung_with_its_worker_continues_after_a_kill(tmp_path: Path) -> None:
    """Of two trials the second passes at once; the third overtakes it before its next epoch."""
    space, asked = replace(SPACE, reduction_factor=2), spec(trials=6, max_epochs=4, pruner="promoting")
    held = open_desk(tmp_path / "night", space, asked)
    tasks = [held.task() for _ in range(4)]
    stays = [
        held.director.take(task.trial, report(task, 1, value))
        for task, value in zip(tasks, (0.5, 0.6, 0.9), strict=False)
    ]
    assert stays == [False, True, True]
    assert [event.trial for event in held.events() if isinstance(event, TrialUnpaused)] == [1, 2]
    held.journal.close()
    again = open_desk(tmp_path / "night", space, asked)
    assert sorted(again.task().trial for _ in range(3)) == [1, 2, 3]
    assert [trial.number for trial in again.director.history.paused] == [0]


def test_a_trial_that_a_person_paused_at_its_rung_waits_there_after_a_kill(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=2)
    task = held.task()
    held.director.pause(0, "person", "ana")
    held.director.take(0, report(task, 1, 0.3))
    held.director.unpause(0, "ana")
    held.journal.close()
    again = desk(tmp_path / "night", trials=2)
    tasks = [again.director.next_task() for _ in range(2)]
    assert [task.trial for task in tasks if task] == [1]
    assert again.director.history.trials[0].waits_at_rung


def test_a_person_can_continue_a_trial_that_waits(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    task = held.task()
    held.director.take(0, report(task, 1, 0.3))
    held.director.unpause(0, "ana")
    again = held.task()
    assert again.trial == 0
    assert held.director.take(0, report(again, 2, 0.3)), "it has left its rung"


def test_a_trial_that_a_person_holds_at_its_rung_is_promoted_only_after_its_unpause(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=3)
    for value in (0.9, 0.1):
        task = held.task()
        assert not held.director.take(task.trial, report(task, 1, value))
    held.director.pause(0, "person", "ana")
    third = held.task()
    held.director.take(2, report(third, 1, 0.2))
    trial = held.director.history.trials[0]
    assert (trial.state, trial.reason) == ("paused", "paused by ana")
    assert held.director.next_task() is None, "it is the best of three, and not promoted"
    held.director.request_stop("a signal")
    held.director.leave()
    again = desk(tmp_path / "night", trials=3)
    assert again.director.next_task() is None, "nor by the next driver"
    again.director.unpause(0, "ana")
    promoted = again.task()
    assert promoted.trial == 0
    paused = [event.reason for event in again.events() if isinstance(event, TrialPaused) and event.trial == 0]
    assert paused == ["rung", "person", "rung"]


def test_a_poor_trial_that_was_held_at_its_rung_waits_there_again(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=9)
    for value in (0.9, 0.1):
        task = held.task()
        held.director.take(task.trial, report(task, 1, value))
    held.director.pause(1, "person", "ana")
    held.director.unpause(1, "ana")
    other = held.task()
    assert other.trial == 2
    assert held.director.history.trials[1].state == "waiting"


def test_states_beyond_the_limit_are_dropped_with_one_warning(tmp_path: Path) -> None:
    said: list[str] = []
    held = desk(tmp_path / "night")
    held.journal.close()
    listeners = (KeptStates(held.folder, 0, said.append),)
    held = desk(tmp_path / "night", listeners=listeners)
    for number in range(3):
        task = held.task()
        held.folder.trial(number).last.write_bytes(b"state")
        held.director.take(number, report(task, 1, 0.3 - 0.1 * number))
    assert len(said) == 1
    assert "trial 0: its state is deleted" in said[0]


def test_of_equal_trials_no_more_than_the_share_are_promoted() -> None:
    rule = Promoting(1, 4)
    for trial in range(8):
        assert rule.report(trial, 1, 0.25) is None
        rule.wait(trial)
    assert rule.promotable(0) == [0, 1]
    rule.leave(0)
    assert rule.promotable(0) == [1]


def grouped(root: Path, trials: int = len(VALUES), slots: int = 1, space: Space = SPACE, **asked: Any) -> Desk:
    """Run a sweep of groups; a further member is a little worse than its first."""
    held = open_desk(root, space, spec(trials=trials, max_epochs=4, pruner=space.pruner, **asked))
    places = curves()

    def body(task: Task) -> Iterator[Message]:
        started = held.director.history.trials[task.trial].started
        source = started.group.confirms or started.group.first if started.group else task.trial
        first = held.director.history.trials[source].started
        drawn = [trial.number for trial in held.director.history.trials.values() if not trial.started.is_further_member]
        curve = [value - 0.01 * task.config.replicate for value in places[drawn.index(first.trial)]]
        yield from scripted_body({task.trial: curve})(task)

    SimulatedRunner(slots, clock=lambda: 0.0).run(held.director, body)
    held.director.leave()
    return held


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("asked", [{"replicates": 3}, {"folds": 3, "fold_faces": ("1", "2", "3")}])
def test_a_group_waits_by_its_first_member_and_is_whole_where_that_is_done(
    tmp_path: Path, slots: int, asked: dict[str, Any]
) -> None:
    history = grouped(tmp_path / "night", slots=slots, **asked).director.history
    assert not history.unfinished
    groups = history.groups()
    assert len(groups) == len(VALUES)
    best = max(groups, key=lambda group: group.mean)
    assert groups.index(best) == VALUES.index(0.9)
    assert best.is_whole
    for group in groups:
        done = group.first.state == "done"
        assert done or len(group.members) == 1, "no member of a group that waits is trained"
        assert done or group.first.state == "pruned"
    assert sum(len(trial.epochs) for trial in history.trials.values()) < len(VALUES) * 3 * 2


def test_the_sampler_learns_the_mean_of_a_group_that_waited(tmp_path: Path) -> None:
    held = grouped(tmp_path / "night", replicates=2)
    study = Study(held.folder.study_log, SPACE, spec().seed, held.events())
    study.propose(held.director.history.next_number)
    done = [group for group in held.director.history.groups() if group.done]
    assert [len(group.done) for group in done] == [2, 1], "the second one could no longer win"
    told = [trial.value for trial in study._study.trials if trial.value is not None]
    assert told == pytest.approx([group.mean for group in done])


def test_a_baselines_group_is_side_by_side_from_the_start(tmp_path: Path) -> None:
    space = replace(SPACE, baselines=BASELINES.baselines[:1])
    held = open_desk(tmp_path / "night", space, spec(trials=3, max_epochs=4, replicates=2, pruner="promoting"))
    started = [held.director.next_task() for _ in range(4)]
    trials = [held.director.history.trials[task.trial].started for task in started if task]
    assert [(one.baseline is not None, one.group.member) for one in trials if one.group] == [
        (True, 0), (True, 1), (False, 0), (False, 0)
    ]  # fmt: skip


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("asked", [{}, {"replicates": 2}])
def test_the_best_are_confirmed_once_what_waits_is_pruned(tmp_path: Path, slots: int, asked: dict[str, Any]) -> None:
    held = grouped(tmp_path / "night", slots=slots, confirm=1, **asked)
    history = held.director.history
    confirming = [trial for trial in history.trials.values() if trial.is_confirming]
    assert [trial.state for trial in confirming] == ["done"] * held.director.spec.confirming_members
    assert not any(trial.paused or trial.attempts for trial in confirming), "none waits at a rung"
    assert not history.unfinished
    assert not held.director.spec.to_start(history)
    places = [place for place, event in enumerate(held.events()) if isinstance(event, TrialEnded)]
    assert min(trial.number for trial in confirming) > max(
        trial.number for trial in history.trials.values() if trial.state == "pruned"
    )
    assert len(places) == len(history.trials)


def test_groups_killed_anywhere_come_to_the_same_sweep(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"replicates": 2, "confirm": 1}
    whole = grouped(tmp_path / "whole", **asked)
    lines = whole.folder.journal.read_text().splitlines(keepends=True)
    for cut in range(2, len(lines), 5):
        root = tmp_path / str(cut)
        root.mkdir(mode=0o700)
        (root / "journal.jsonl").write_text("".join(lines[:cut]))
        again = grouped(root, **asked)
        assert not again.director.history.unfinished, cut
        assert outcome(again.folder.journal) == outcome(whole.folder.journal), cut


def test_the_rank_counts_no_further_member(tmp_path: Path) -> None:
    space = replace(SPACE, baselines=BASELINES.baselines[:1])
    held = open_desk(tmp_path / "night", space, spec(trials=3, max_epochs=4, replicates=2, pruner="promoting"))
    tasks = [task for _ in range(3) if (task := held.director.next_task())]
    for task in tasks:
        held.director.take(task.trial, report(task, 1, 0.5 - 0.1 * task.trial))
    (waiting,) = held.director.history.paused
    assert held.director.history.reason_of(waiting).endswith("rank 2 of 2")


def test_who_waits_is_shown_with_its_rank_and_its_sweep_as_stopped(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    for value in (0.3, 0.5):
        task = held.task()
        held.director.take(task.trial, report(task, 1, value))
    held.journal.append(DriverStopped(reason="stopped by SIGINT"))
    living = Living(held.folder)
    first = living.state()
    assert first["summary"]["state"] == "stopped"
    assert first["summary"]["digest"]["trials"] == {"waiting": 2}
    reasons = [f"waits at the rung after epoch 1, rank {rank} of 2" for rank in (2, 1)]
    assert [(trial["state"], trial["reason"]) for trial in first["trials"]] == [("waiting", one) for one in reasons]
    assert all(ended is not None for trial in first["trials"] for _, ended in trial["spans"]), "none has a worker"
    assert living.state(since=first["version"])["trials"] == [], "nothing changed"
    task = held.task()
    held.director.take(task.trial, report(task, 1, 0.4))
    third, *others = living.state(since=first["version"])["trials"]
    assert (third["number"], third["reason"]) == (2, "waits at the rung after epoch 1, rank 2 of 3")
    ranks = {0: "waits at the rung after epoch 1, rank 3 of 3", 1: "waits at the rung after epoch 1, rank 1 of 3"}
    again = [{"number": number, "reason": one, "forecast": None} for number, one in ranks.items()]
    assert others == again, "no curve is sent again"


def test_a_promoted_trial_that_comes_to_nothing_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    def body(task: Task) -> Iterator[Message]:
        for message in scripted_body(curves())(task):
            if isinstance(message, EpochReport) and message.epoch == 2 and task.trial in (3, 6):
                message = TrialEnd(attempt=task.attempt, state="failed", diverged=task.trial == 3, reason="a fault")
            elif isinstance(message, EpochReport) and message.epoch == 2 and task.trial == 8:
                held.director.give_up(8, "stopped by ana")
            yield message

    held = desk(tmp_path / "night")
    InlineRunner().run(held.director, body)
    held.director.leave()
    trials = held.director.history.trials
    beyond = {
        number: trial.state for number, trial in trials.items() if trial.last_epoch > 1 or trial.state != "pruned"
    }
    assert beyond == {1: "done", 3: "failed", 5: "pruned", 6: "failed", 8: "stopped"}
    assert trials[4].reason == "stopped at epoch 1: not promoted, rank 6 of 6"


def test_the_rank_counts_no_trial_that_was_stopped(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    for value in (0.5, 0.3):
        task = held.task()
        held.director.take(task.trial, report(task, 1, value))
    held.director.give_up(0, "stopped by ana")
    for seen in (held, desk(tmp_path / "night")):
        (waiting,) = seen.director.history.paused
        assert seen.director.history.reason_of(waiting).endswith("rank 1 of 1")
        assert seen.director._study.rank(1) == (1, 1)


def test_a_group_that_is_given_up_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    def body(task: Task) -> Iterator[Message]:
        started = held.director.history.trials[task.trial].started
        if started.is_further_member and started.group and started.group.first == 3:
            yield TrialEnd(attempt=task.attempt, state="failed", reason="a fault")
        else:
            yield from scripted_body({task.trial: curves([0.2, 0.5, 0.3, 0.9] + [0.5] * 9)[task.trial]})(task)

    asked = spec(trials=4, max_epochs=4, pruner="promoting", replicates=2)
    held = open_desk(tmp_path / "night", replace(SPACE, reduction_factor=4), asked)
    InlineRunner().run(held.director, body)
    held.director.leave()
    assert not held.director.history.unfinished
    whole = [group.first.number for group in held.director.history.groups() if group.is_whole]
    assert whole == [1], "the best one was given up"
