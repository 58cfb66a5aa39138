"""Where the rungs are by default, what trials are compared by, and that sweeps of earlier versions keep theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.errors import InputError
from sweeps.search.asha import Promoting
from sweeps.space import Pruner, Space
from sweeps.sweep import SweepResult
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import metrics, open_desk, outcome, spec, suggest, verdict_stands

SPACE = Space(suggest=suggest, sampler="qmc", rungs="all", name="rungs")
EARLIER = replace(SPACE, first_rung_epochs=2, reduction_factor=4, later_factor=4, loss_epochs=0)
"""The rungs that were the default once."""


def skill(task: Task) -> float:
    return task.seed % 997 / 2000


def body(task: Task) -> Iterator[Message]:
    """In the first epoch a trial gives one class to all faces; what it has learned shows in its loss alone."""
    for epoch in range(1, task.epochs + 1):
        if verdict_stands(task):
            break
        seen = metrics(skill(task) + 0.01 * epoch)
        yield EpochReport(
            attempt=task.attempt, epoch=epoch, metrics=seen | {"val_accuracy": 0.01} if epoch == 1 else seen
        )
    yield TrialEnd(attempt=task.attempt, state="ended")


def test_at_the_first_rung_trials_are_compared_by_loss(sweep: Callable[..., SweepResult]) -> None:
    result = sweep(space=SPACE, trials=16, epochs=9, body=body)
    assert result.history.finished
    best_first = sorted(result, key=lambda trial: -(trial.started.seed % 997))
    assert best_first[0].state == "done"
    assert {trial.last_epoch for trial in result} == {1, 4, 9}
    ranks = {trial.number: f"rank {place} of 16 by val loss" for place, trial in enumerate(best_first, start=1)}
    assert all(trial.reason.endswith(ranks[trial.number]) for trial in result if trial.last_epoch == 1)


def test_a_body_that_reports_no_loss_competes_by_accuracy(sweep: Callable[..., SweepResult]) -> None:
    def without_loss(task: Task) -> Iterator[Message]:
        for message in body(task):
            if isinstance(message, EpochReport):
                reached = {"val_accuracy": skill(task) + 0.01 * message.epoch}
                yield EpochReport(attempt=task.attempt, epoch=message.epoch, metrics=reached)
            else:
                yield message

    result = sweep(space=SPACE, trials=16, epochs=9, body=without_loss)
    assert max(result, key=lambda trial: trial.started.seed % 997).state == "done"


def test_the_rank_that_is_shown_is_by_loss_too(tmp_path: Path) -> None:
    held = open_desk(tmp_path / "night", SPACE, spec(trials=3, max_epochs=9, loss_epochs=1))
    for loss in (1.8, 1.6, 1.7):
        task = held.director.next_task()
        assert task is not None
        seen = metrics(0.25) | {"val_loss": loss}
        held.director.take(task.trial, EpochReport(attempt=task.attempt, epoch=1, metrics=seen))
    reasons = [held.director.history.reason_of(trial).rpartition(", ")[2] for trial in held.director.history.paused]
    assert reasons == [f"rank {rank} of 3 by val loss" for rank in (3, 1, 2)]


def test_one_in_four_passes_the_first_rung_and_one_in_two_each_later_one() -> None:
    promoting = Promoting(1, 4, later_factor=2)
    for epoch, trials in ((1, range(8)), (4, range(2))):
        for trial in trials:
            assert promoting.report(trial, epoch, 0.9 - trial / 10) is None
            promoting.wait(trial)
        ready = promoting.promotable(0)
        assert ready == list(range(len(trials) // (4 if epoch == 1 else 2)))
        for trial in ready:
            promoting.leave(trial)


def test_expected_epochs_by_default() -> None:
    assert SPACE.expected_epochs(20) == 1 + 3 / 4 + 12 / 8 + 4 / 16  # rungs at 1, 4 and 16


@pytest.mark.parametrize(
    ("pruner", "expected"),
    [("halving", 1 + 2 / 3 + 6 / 9 + 11 / 27), ("one-epoch", 1 + 19 / 9), ("median", None), ("hyperband", None)],
)
def test_expected_epochs_of_other_pruners(pruner: Pruner, expected: float | None) -> None:
    assert replace(SPACE, pruner=pruner).expected_epochs(20) == (expected and pytest.approx(expected))


def test_a_space_with_a_reduction_factor_has_it_at_each_rung() -> None:
    assert replace(SPACE, reduction_factor=3).later_kept_one_in == 3


def test_other_pruners_compare_by_accuracy_and_have_one_factor() -> None:
    halving = replace(SPACE, pruner="halving")
    assert (halving.kept_one_in, halving.later_kept_one_in, halving.compared_by_loss) == (3, 3, 0)


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(
        InputError, match=r"later_factor must be at least 2, got 1; loss_epochs must be at least 0, got -1"
    ):
        replace(SPACE, later_factor=1, loss_epochs=-1)


@pytest.mark.parametrize("pruner", ["promoting", "halving"])
def test_a_sweep_with_another_pruner_than_its_space_is_resumed(
    sweep: Callable[..., SweepResult], pruner: Pruner
) -> None:
    other: Pruner = "halving" if pruner == "promoting" else "promoting"
    asked = {"space": replace(SPACE, pruner=other), "pruner": pruner, "epochs": 9, "body": body}
    sweep(trials=4, **asked)
    assert sweep(trials=8, resume=True, **asked).history.finished


@pytest.mark.parametrize(
    "unrecorded", [("later_factor", "loss_epochs"), ("later_factor", "loss_epochs", "first_rung_epochs")]
)
def test_sweeps_of_earlier_versions_keep_their_rungs(
    sweep: Callable[..., SweepResult], out: Path, unrecorded: tuple[str, ...]
) -> None:
    asked = {"trials": 16, "epochs": 9, "body": body}
    whole = sweep(space=EARLIER, name="whole", **asked)
    assert {trial.last_epoch for trial in whole} == {2, 8, 9}
    sweep(space=EARLIER, **asked)
    journal = out / "night/journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = lines[: next(place for place, line in enumerate(lines) if line.get("trial") == 9)]
    for line in kept:
        for name in unrecorded if line.get("spec") else ():
            del line["spec"][name]
    journal.write_text("".join(json.dumps(line) + "\n" for line in kept))
    sweep(space=SPACE, resume=True, **asked)
    assert outcome(journal) == outcome(out / "whole/journal.jsonl")
