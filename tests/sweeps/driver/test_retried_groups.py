"""A member of a group that failed and is trained again takes the failed trial's place in the group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.driver.acts import Acts
from sweeps.driver.runner import InlineRunner
from sweeps.search.study import Study
from sweeps.space import Space
from sweeps.trial.messages import Message, Task, TrialEnd
from tests.sweeps.fake_trials import Desk, ended, only_sampled, open_desk, report, scripted_body, spec, take_all
from tracking.record.events import TrialPaused
from tracking.record.inbox import Request
from tracking.record.journal import read

PROMOTING = replace(only_sampled(), pruner="promoting", sampler="qmc", reduction_factor=3)
"""Rungs after epochs 1 and 3, of 4."""


def retry(held: Desk, space: Space) -> None:
    act = Acts(held.folder, space, 4).perform(held.director, Request(verb="retry", arguments={}, who="ana@here"))
    assert not act.refused


def learned(held: Desk, space: Space) -> list[list[float]]:
    """The final values in the sweep's own study, and in one that is rebuilt from the journal."""
    rebuilt = Study(held.folder.root / "rebuilt.log", space, 7, read(held.folder.journal))
    studies = (held.director._study, rebuilt)
    return [[one.value for one in study._study.trials if one.value is not None] for study in studies]


def retried_group(root: Path, value: float) -> Desk:
    """A sweep of four groups of two, three with values about 0.5; the first trial of the other one fails, and its
    retry reaches `value`.
    """
    held = open_desk(root, PROMOTING, spec(trials=4, max_epochs=4, replicates=2, pruner="promoting"))

    def body(task: Task) -> Iterator[Message]:
        group = held.director.history.trials[task.trial].started.group
        assert group
        if task.trial == 1:
            yield TrialEnd(attempt=task.attempt, state="failed", reason="a fault")
        else:
            reached = value if group.first == 1 else 0.5 + 0.001 * group.first
            yield from scripted_body({task.trial: [reached - 0.01 * left for left in (3, 2, 1, 0)]})(task)

    InlineRunner().run(held.director, body)
    retry(held, PROMOTING)
    InlineRunner().run(held.director, body)
    held.director.leave()
    assert not held.director.history.unfinished
    return held


def test_a_retried_first_member_waits_at_the_rung_and_is_pruned_with_its_group(tmp_path: Path) -> None:
    held = retried_group(tmp_path / "night", 0.1)
    (number,) = (one.number for one in held.director.history.trials.values() if one.started.wanted)
    again = held.director.history.trials[number]
    assert number in {event.trial for event in held.events() if isinstance(event, TrialPaused)}
    assert (again.state, again.last_epoch) == ("pruned", 1)
    assert again.reason == "stopped at epoch 1: not promoted, rank 4 of 4"
    assert len(held.director.history.group_of(again).members) == 1


def test_a_retried_first_member_is_promoted_and_the_sampler_learns_its_groups_mean(tmp_path: Path) -> None:
    held = retried_group(tmp_path / "night", 0.9)
    (again,) = (one for one in held.director.history.trials.values() if one.started.wanted)
    group = held.director.history.group_of(again)
    assert group.is_whole
    for values in learned(held, PROMOTING):
        assert values.count(pytest.approx(group.mean)) == 1


@pytest.mark.parametrize("failed", [0, 1])
def test_the_sampler_learns_the_mean_of_all_members_once(tmp_path: Path, failed: int) -> None:
    """Member `failed` of a group of three fails and is trained again, before the others start."""
    space = only_sampled(first_rung_epochs=9)
    held = open_desk(tmp_path / "night", space, spec(trials=2, max_epochs=2, replicates=3))
    for number in range(4):
        task = held.task()
        assert task.trial == number
        if number == failed:
            held.director.take(number, TrialEnd(attempt=0, state="failed", reason="a fault"))
            retry(held, space)
        else:
            take_all(held, task, [0.5, 0.6 + number / 100])
            held.director.take(number, ended(task))
    (group,) = held.director.history.groups()
    assert group.is_whole
    for values in learned(held, space):
        assert values == [pytest.approx(group.mean)]


def test_the_rank_that_is_shown_counts_the_trials_that_compete(tmp_path: Path) -> None:
    """The first trial of the second group fails, and its retry is stopped after it waits: two of three groups are left."""
    held = open_desk(tmp_path / "night", PROMOTING, spec(trials=3, max_epochs=4, replicates=2, pruner="promoting"))
    for number, value in enumerate((0.5, None, 0.3)):
        task = held.task()
        assert task.trial == number
        if value is None:
            held.director.take(number, TrialEnd(attempt=0, state="failed", reason="a fault"))
        else:
            held.director.take(number, report(task, 1, value))
    retry(held, PROMOTING)
    task = held.task()
    held.director.take(task.trial, report(task, 1, 0.4))
    history, study = held.director.history, held.director._study
    for left in (3, 2):
        assert study.rank(2) == (left, left)
        assert f"rank {left} of {left}" in history.reasons([history.trials[2]])[2]
        if left == 3:
            held.director.give_up(task.trial, "stopped by ana")
