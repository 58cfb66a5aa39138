"""Groups: several seeds or folds of one configuration are one trial to the sampler, and given up as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.after.report_input import sweep_page
from sweeps.cli.overview import sweep_row
from sweeps.cli.progress import best_line
from sweeps.cli.tables.leaderboard import leaderboard
from sweeps.driver.runner import InlineRunner
from sweeps.errors import InputError
from sweeps.search.study import Study
from sweeps.serve.living import Living
from sweeps.space import Space
from sweeps.sweep import SweepResult
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import Desk, ended, metrics, only_sampled, open_desk, outcome, report, spec, take_all
from tracking.metrics.groups import confirmation_of
from tracking.pages.report_rows import group_rows
from tracking.record.events import Act, Lengthened, TrialEnded, Verdict, Wanted
from tracking.record.history import SweepHistory
from tracking.record.journal import read

LATE = only_sampled(first_rung_epochs=9)


def body(values: Callable[[Task], float]) -> Callable[[Task], Iterator[Message]]:
    def run(task: Task) -> Iterator[Message]:
        for epoch in range(1, task.epochs + 1):
            yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(values(task)))
        yield TrialEnd(attempt=task.attempt, state="ended")

    return run


def ran(root: Path, values: Callable[[Task], float], space: Space = LATE, **asked: Any) -> Desk:
    desk = open_desk(root, space, spec(max_epochs=2, **asked))
    InlineRunner().run(desk.director, body(values))
    return desk


def by_seed(task: Task) -> float:
    return 0.3 + (task.seed % 997) / 2000


def values_told(desk: Desk, space: Space, seed: int = 7) -> list[float | None]:
    study = Study(desk.folder.study_log, space, seed, read(desk.folder.journal))
    return [trial.value for trial in study._study.trials if trial.value is not None]


def test_seeds_of_a_configuration_are_one_trial_to_the_sampler(tmp_path: Path) -> None:
    history = ran(tmp_path / "night", by_seed, trials=1, replicates=3).director.history
    assert len(history.trials) == 3
    (group,) = history.groups()
    assert len({trial.started.seed for trial in history.trials.values()}) == 3
    plain = {str(t.started.config | {"replicate": 0}) for t in history.trials.values()}
    assert len(plain) == 1, "nothing but the seed differs"
    desk = ran(tmp_path / "day", by_seed, trials=2, replicates=3)
    means = [one.mean for one in desk.director.history.groups() if one.is_whole]
    assert values_told(desk, LATE)[: len(means)] == pytest.approx(means)
    assert group.mean == pytest.approx(means[0]), "the first proposal does not depend on what comes after"


def test_a_group_that_cannot_win_is_not_completed(tmp_path: Path) -> None:
    def values(task: Task) -> float:
        return (0.6 if task.trial < 3 else 0.2) + 0.001 * (task.trial % 3)

    desk = ran(tmp_path / "night", values, trials=3, replicates=3)
    sizes = [len(group.members) for group in desk.director.history.groups()]
    assert sizes == [3, 1, 1]
    assert values_told(desk, LATE) == pytest.approx([0.601, 0.2]), "of the last once another one begins"


def test_a_group_that_may_still_win_is_completed(tmp_path: Path) -> None:
    def values(task: Task) -> float:
        return [0.60, 0.52, 0.56, 0.55, 0.60, 0.62][task.trial]

    groups = ran(tmp_path / "night", values, trials=2, replicates=3).director.history.ranked_groups()
    assert [(group.first.number, len(group.members)) for group in groups] == [(3, 3), (0, 3)]


def test_members_run_side_by_side_and_end_together_when_the_first_is_pruned(tmp_path: Path) -> None:
    space = only_sampled(first_rung_epochs=1)
    desk = open_desk(tmp_path / "night", space, spec(trials=2, max_epochs=4, replicates=2))
    tasks = [task for _ in range(4) if (task := desk.director.next_task())]
    assert [task.trial for task in tasks] == [0, 1, 2, 3]
    assert desk.director.take(0, report(tasks[0], 1, 0.9))
    assert desk.director.take(3, report(tasks[3], 1, 0.1)), "the group competes with its first member"
    desk.director.take(2, report(tasks[2], 1, 0.2))
    verdicts = {number: trial.verdict.reason for number, trial in desk.director.history.trials.items() if trial.verdict}
    assert verdicts.keys() == {2, 3}
    assert verdicts[3].startswith("trial 2 of its group is pruned: stopped at epoch 1")


def test_each_member_of_a_group_that_is_given_up_ends_once(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", only_sampled(first_rung_epochs=1), spec(trials=2, max_epochs=4, replicates=3))
    tasks = [desk.task() for _ in range(6)]
    desk.director.take(0, report(tasks[0], 1, 0.9))
    desk.director.take(3, report(tasks[3], 1, 0.2))
    assert [event.trial for event in desk.events() if isinstance(event, Verdict)] == [3, 4, 5]


def test_each_member_that_waits_for_a_worker_ends_once_when_its_group_is_given_up(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", LATE, spec(trials=1, replicates=5))
    for task in [desk.task() for _ in range(5)]:
        desk.director.worker_died(task.trial, "gone")
    desk.director.give_up(2, "stopped by ana")
    ends = [event for event in desk.events() if isinstance(event, TrialEnded)]
    assert [event.trial for event in ends] == [2, 0, 1, 3, 4]
    assert {event.reason for event in ends[1:]} == {"trial 2 of its group is stopped: stopped by ana"}


def test_a_sweep_killed_anywhere_comes_to_the_same_groups(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"trials": 3, "replicates": 2}
    whole = ran(tmp_path / "whole", by_seed, **asked)
    lines = whole.folder.journal.read_text().splitlines(keepends=True)
    for cut in range(1, len(lines), 3):
        root = tmp_path / f"cut{cut}"
        root.mkdir(mode=0o700)
        (root / "journal.jsonl").write_text("".join(lines[:cut]))
        again = ran(root, by_seed, **asked)
        assert outcome(again.folder.journal) == outcome(whole.folder.journal), f"after line {cut}"
        told = [event.told for event in again.events() if isinstance(event, TrialEnded)]
        assert told.count("value") == 6


def test_evenly_spread_proposals_stay_so(tmp_path: Path) -> None:
    """Every second point of an even sequence would not be evenly spread."""
    space = replace(LATE, sampler="qmc")
    alone = ran(tmp_path / "alone", by_seed, space, trials=4).director.history
    groups = ran(tmp_path / "groups", by_seed, space, trials=4, replicates=2).director.history
    drawn = [group.first.started.params for group in groups.groups()]
    assert drawn == [trial.started.params for trial in alone.trials.values()]


@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_group_that_gets_more_epochs_is_learned_when_its_members_end_again(
    tmp_path: Path, done: int, *, resumed: bool
) -> None:
    """Member `done` has ended at 2 epochs, the other has trained one, when both get 4."""
    other, asked = 1 - done, spec(trials=1, max_epochs=2, replicates=2)
    space = replace(LATE, pruner="none")
    desk = open_desk(tmp_path / "night", space, asked)
    tasks = [desk.task(), desk.task()]
    take_all(desk, tasks[done], [0.1, 0.2])
    desk.director.take(done, ended(tasks[done]))
    take_all(desk, tasks[other], [0.1])
    longer = asked.model_copy(update={"max_epochs": 4})
    changes = (Lengthened(trial=done, epochs=4, epoch=1), Lengthened(trial=other, epochs=4, epoch=1))
    desk.director.record_act(
        Act(
            act="1",
            verb="extend",
            who="ana",
            asked_ms=0,
            answer="",
            lengthened=changes,
            spec=longer.model_dump(mode="json"),
        )
    )
    if resumed:
        desk.journal.close()
        desk = open_desk(tmp_path / "night", replace(space, max_epochs=4), longer)
    else:
        desk.director.take(other, report(tasks[other], 2, 0.2))  # its worker trained for the old length
    again = {task.trial: task for task in (desk.task(), desk.task())}
    for number in (other, done):
        assert [trial.value for trial in desk.director._study._study.trials if trial.value is not None] == []
        for epoch in (2, 3, 4):
            desk.director.take(number, report(again[number], epoch, 0.1 * epoch + 0.2 * number))
        desk.director.take(number, ended(again[number]))
    told = [trial.value for trial in desk.director._study._study.trials if trial.value is not None]
    assert told == values_told(desk, space) == pytest.approx([0.5]), "the mean of 0.4 and 0.6"


def test_the_table_has_a_mean_with_its_interval_above_the_members(tmp_path: Path) -> None:
    desk = ran(tmp_path / "night", by_seed, trials=1, replicates=2)
    table = leaderboard(desk.director.history, desk.director.spec, desk.folder)
    trial, accuracy, interval = (list(table.columns[place].cells) for place in (1, 4, 5))
    assert (trial[0], accuracy[0]) == ("mean of 2", f"{desk.director.history.groups()[0].mean:.2%}")
    assert str(trial[1]).endswith("of 2")
    assert " to " in str(interval[0])


def test_the_mean_of_a_group_is_within_its_interval_while_a_member_runs(tmp_path: Path) -> None:
    """Two members are done with 60 and 61 %, the third has 20 %; t of one degree of freedom is 12.706."""
    desk = open_desk(tmp_path / "night", LATE, spec(trials=1, max_epochs=2, replicates=3))
    for accuracies in ([0.6, 0.6], [0.61, 0.61], [0.2]):
        task = desk.task()
        take_all(desk, task, accuracies)
        if len(accuracies) == task.epochs:
            desk.director.take(task.trial, ended(task))
    history = desk.director.history
    table = leaderboard(history, desk.director.spec, desk.folder)
    cells = [str(next(iter(column.cells))) for column in table.columns]
    assert cells[1:6] == ["mean of 2", "2 of 3 done", "", "60.50%", "54.1% to 66.9%"]
    by_hand = pytest.approx((0.605, 0.605 - 12.706 * 0.005, 0.605 + 12.706 * 0.005), abs=1e-5)
    best = sweep_row(desk.folder, history).digest.best
    assert best
    assert (best.mean_of, (best.value, best.low, best.high)) == (2, by_hand)
    (row,) = group_rows(history)
    assert row.interval
    assert (row.done, (row.mean, row.interval.low, row.interval.high)) == ("2 of 3", by_hand)
    (group,) = Living(desk.folder).state()["summary"]["groups"]
    assert (group["mean_of"], group["mean"]) == (2, pytest.approx(0.605))
    assert best_line(history).startswith("best so far: 60.50% val_accuracy, mean of 2,")


def test_the_best_are_confirmed_under_new_seeds_and_the_winner_is_chosen_by_their_mean(tmp_path: Path) -> None:
    """Trial 1 was lucky: under new seeds trial 2 is better."""

    def values(task: Task) -> float:
        return [0.50, 0.62, 0.60, 0.55, 0.54, 0.56, 0.58, 0.59, 0.60][task.trial]

    desk = ran(tmp_path / "night", values, trials=3, confirm=2)
    history = desk.director.history
    assert [(one.confirms, len(one.members)) for one in history.groups()[3:]] == [(1, 3), (2, 3)]
    assert len({trial.started.seed for trial in history.trials.values()}) == 9, "no seed is used twice"
    assert history.ranked_groups()[0].confirms == 2
    assert values_told(desk, LATE) == pytest.approx([0.50, 0.62, 0.60]), "the sampler does not see them"
    found = confirmation_of(history)
    assert found
    assert (found.trial, found.first, found.best_at_first, found.among) == (2, 0.60, 0.62, 2)
    assert found.confirmed.value == pytest.approx(0.59)
    assert "62.00% before, 3.0 points more" in str(found)
    assert not desk.director.spec.to_start(history)


@pytest.mark.parametrize("verb", ["fork", "retry"])
def test_a_fork_is_not_confirmed_nor_is_a_retry_that_continues_it(tmp_path: Path, verb: str) -> None:
    """The best is a fork of trial 0 after its first epoch, or a retry of that fork, which failed."""
    asked = spec(trials=2, max_epochs=2, confirm=1)
    desk = open_desk(tmp_path / "night", replace(LATE, pruner="none"), asked)

    def ask(verb: str, source: int, trials: int) -> None:
        wanted = Wanted(
            act=f"{verb}1", verb=verb, source=source, config=desk.director.history.trials[source].started.config,
            epochs=2, epoch=1,
        )  # fmt: skip
        more = asked.model_copy(update={"trials": trials}).model_dump(mode="json")
        desk.director.record_act(
            Act(act=wanted.act, verb=verb, who="ana", asked_ms=0, answer="", wanted=(wanted,), spec=more)
        )

    def run(values: list[float]) -> Task:
        task = desk.task()
        take_all(desk, task, values)
        desk.director.take(task.trial, ended(task))
        return task

    run([0.4, 0.5])
    ask("fork", 0, 3)
    if verb == "retry":
        failed = desk.task()
        desk.director.take(failed.trial, TrialEnd(attempt=failed.attempt, state="failed", reason="a fault"))
        ask("retry", failed.trial, 4)
    best = run([0.4, 0.8])
    run([0.3, 0.4])
    assert desk.director.history.ranked()[0].number == best.trial
    confirming = [desk.task() for _ in range(3)]
    places = [desk.director.history.trials[task.trial].started.group for task in confirming]
    assert [place.confirms for place in places if place] == [0, 0, 0]


def test_confirmation_waits_for_the_last_trial_and_is_kept_by_a_resume(tmp_path: Path) -> None:
    asked = spec(trials=2, max_epochs=2, confirm=1)
    desk = open_desk(tmp_path / "night", LATE, asked)
    first, second = desk.director.next_task(), desk.director.next_task()
    assert first
    assert second
    for epoch in (1, 2):
        desk.director.take(0, report(first, epoch, 0.5))
    desk.director.take(0, TrialEnd(attempt=0, state="ended"))
    assert desk.director.next_task() is None
    assert not desk.director.exhausted
    assert not desk.director.has_task
    again = open_desk(tmp_path / "night", LATE, asked)
    InlineRunner().run(again.director, body(by_seed))
    assert [trial.is_confirming for trial in again.director.history.trials.values()] == [False] * 2 + [True] * 3
    assert again.director.exhausted


def test_a_trial_that_waits_for_a_person_does_not_keep_the_driver(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night", LATE, spec(trials=1, max_epochs=2, confirm=1))
    assert desk.director.next_task()
    desk.director.worker_died(0, "gone")
    desk.director.pause(0, "person", "ana")
    assert desk.director.exhausted


Sweep = Callable[..., SweepResult]


def test_folds_are_folds_of_train_and_val(sweep: Sweep) -> None:
    seen: dict[int, tuple[int | None, str]] = {}

    def remembering(task: Task) -> Iterator[Message]:
        seen[task.trial] = (task.data.fold, task.faces)
        yield from body(by_seed)(task)

    result = sweep(trials=1, folds=2, baselines="first", body=remembering, epochs=2)
    assert [fold for fold, _ in seen.values()] == [1, 2]
    assert len({faces for _, faces in seen.values()}) == 2
    assert {trial.started.fold for trial in result} == {1, 2}
    assert SweepHistory.load(result.folder.journal).trials[1].started.title.endswith("fold 2 of 2")


def test_the_report_has_the_means_and_the_command_that_repeats_them(sweep: Sweep) -> None:
    result = sweep(trials=1, folds=2, baselines="first", body=body(by_seed), epochs=2, confirm=1)
    page = sweep_page(result.folder, result.history)
    assert "best mean val accuracy" in page
    assert "<dt>sampler</dt><dd>tpe</dd><dt>pruner</dt><dd>halving</dd>" in page
    assert "trial 0 confirmed" in page
    assert "under new seeds" in page
    assert "--folds 2" in page
    assert "--confirm 1" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"replicates": 2, "folds": 2}, "give one"),
        ({"folds": 2, "data": {"source": None, "fold": 1, "folds": 2}}, "is one fold and --folds 2 is all"),
        ({"folds": 1}, "--folds"),
        ({"trials": 2, "confirm": 3}, "--confirm 3: the sweep has 2 trials; give at most 2"),
    ],
)
def test_what_does_not_go_together(sweep: Sweep, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        sweep(**options)
    assert not (tmp_path / "runs/night").exists()


def test_a_resume_keeps_the_groups(sweep: Sweep) -> None:
    sweep(trials=1, replicates=2, epochs=2)
    with pytest.raises(InputError, match="--replicates"):
        sweep(resume=True, replicates=3)
    assert len(sweep(resume=True, trials=2)) == 4


def test_a_space_may_ask_for_groups_and_an_option_replaces_it(sweep: Sweep) -> None:
    grouped = replace(LATE, replicates=2)

    def groups(name: str, **options: Any) -> list[tuple[int, int]]:
        history = sweep(
            **{"name": name, "space": grouped, "trials": 1, "pruner": "none", "figures": False} | options
        ).history
        return [(one.size, len(one.members)) for one in history.groups()]

    assert groups("as-the-space") == [(2, 2)]
    assert groups("more", replicates=3) == [(3, 3)]
    assert groups("once", replicates=1) == [(1, 1)]
    assert groups("folds", folds=2) == [(2, 2)]
    ungrouped = replace(grouped, replicates=None)
    assert groups("as-the-space", space=ungrouped, trials=2, resume=True) == [(2, 2), (2, 2)], "as at its start"
    with pytest.raises(InputError, match="Space: replicates=2 and folds=5: give one; folds also differ in their seeds"):
        replace(grouped, folds=5)
    with pytest.raises(InputError, match="Space: folds must be at least 2, got 1"):
        Space(suggest=grouped.suggest, folds=1)
