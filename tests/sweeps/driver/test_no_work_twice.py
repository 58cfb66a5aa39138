"""A configuration equal to one that is done costs no epoch: sampler and MLflow get the result that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from sweeps import Baseline, Space, TrialConfig
from sweeps.driver.runner import InlineRunner
from sweeps.search.study import Study
from sweeps.space import Pruner
from sweeps.sweep import SweepResult
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import config, good_body, metrics, only_sampled, open_desk, outcome, spec
from tracking.record.history import SweepHistory


def few(trial: optuna.Trial) -> TrialConfig:
    return config(lr=trial.suggest_categorical("lr", [0.01, 0.02, 0.03]))


SPACE = Space(
    suggest=few, baselines=[Baseline("report", config(0.01))], max_epochs=4, trials=9, first_rung_epochs=1_000_000,
    name="few_space",
)  # fmt: skip


class Counted:
    def __init__(self) -> None:
        self.trained: list[float] = []

    def __call__(self, task: Task) -> Iterator[Message]:
        self.trained.append(task.config.recipe.lr)
        yield from good_body(task)


def test_each_configuration_is_trained_once(tmp_path: Path) -> None:
    body = Counted()
    desk = open_desk(
        tmp_path / "night", SPACE, spec(trials=9, max_epochs=4, baseline_epochs=4, baselines={"report": ""})
    )
    InlineRunner().run(desk.director, body)
    assert sorted(body.trained) == [0.01, 0.02, 0.03]
    trials = desk.director.history.trials
    assert len(trials) == 9
    assert {trial.state for trial in trials.values()} == {"done"}
    by_config = {trial.started.config_id: trial for trial in trials.values() if trial.epochs}
    twins = [trial for trial in trials.values() if not trial.epochs]
    assert len(twins) == 6
    for twin in twins:
        original = by_config[twin.started.config_id]
        assert twin.end
        assert original.end
        assert twin.end.best == original.end.best
        assert twin.end.epochs == 0
        assert twin.end.told == "value"
        assert twin.end.reason == (f"equal to trial {original.number}, whose result is reused")
        lines = [event.event for event in desk.events() if getattr(event, "trial", None) == twin.number]
        assert lines == ["trial", "end"]
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(desk.folder.study_log)))
    values = {trial.number: trial.value for trial in optuna.load_study(study_name="few_space", storage=storage).trials}
    assert all(values[twin.number] == twin.end.best["best_val_accuracy"] for twin in twins if twin.end)
    before = outcome(desk.folder.journal)
    desk.journal.close()
    again = open_desk(tmp_path / "night", SPACE, spec(trials=9, max_epochs=4))
    assert again.director.exhausted
    assert outcome(again.folder.journal) == before


def test_nor_where_the_driver_dies_before_a_twins_end_is_recorded(tmp_path: Path) -> None:
    asked = spec(trials=9, max_epochs=4, baseline_epochs=4, baselines={"report": ""})
    desk = open_desk(tmp_path / "night", SPACE, asked)
    InlineRunner().run(desk.director, good_body)
    desk.journal.close()
    before = outcome(desk.folder.journal)
    lines = desk.folder.journal.read_text().splitlines(keepends=True)
    end = min(place for place, line in enumerate(lines) if '"reason":"equal to trial' in line)
    desk.folder.journal.write_text("".join(lines[:end]))
    again = open_desk(tmp_path / "night", SPACE, asked)
    InlineRunner().run(again.director, good_body)
    assert outcome(again.folder.journal) == before


def test_one_that_was_pruned_or_trained_for_less_is_no_twin(tmp_path: Path) -> None:
    body, short = Counted(), spec(trials=2, max_epochs=4, baseline_epochs=2, baselines={"report": ""})
    space = Space(
        suggest=lambda trial: config(0.01), baselines=[Baseline("report", config(0.01), epochs=2)], max_epochs=4,
        trials=2, first_rung_epochs=1_000_000, name="few_space",
    )  # fmt: skip
    desk = open_desk(tmp_path / "night", space, short)
    InlineRunner().run(desk.director, body)
    assert body.trained == [0.01, 0.01]
    assert [trial.last_epoch for trial in desk.director.history.trials.values()] == [2, 4]


def test_replicates_are_trained_each(tmp_path: Path) -> None:
    def replicate(trial: optuna.Trial) -> TrialConfig:
        return config(0.01).model_copy(update={"replicate": trial.number})

    body = Counted()
    desk = open_desk(tmp_path / "night", only_sampled(1_000_000, replicate), spec(trials=3, max_epochs=4))
    InlineRunner().run(desk.director, body)
    assert len(body.trained) == 3


@pytest.mark.parametrize("pruner", ["none", "promoting"])
def test_a_repeated_group_reuses_the_result_of_each_member(tmp_path: Path, pruner: Pruner) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield EpochReport(attempt=task.attempt, epoch=1, metrics=metrics(0.3 + 0.1 * task.config.replicate))
        yield TrialEnd(attempt=task.attempt, state="ended")

    space = replace(only_sampled(9, lambda trial: config(trial.suggest_categorical("lr", [0.01]))), pruner=pruner)
    desk = open_desk(tmp_path / "night", space, spec(trials=2, max_epochs=1, replicates=3, pruner=pruner))
    InlineRunner().run(desk.director, body)
    groups = desk.director.history.groups()
    assert [[trial.state for trial in group.members.values()] for group in groups] == [["done"] * 3] * 2
    assert [len(group.accuracies) for group in groups] == [3, 0], "the second is not trained"
    study = Study(desk.folder.study_log, space, desk.director.spec.seed, desk.events())
    told = [trial.value for trial in study._study.trials if trial.value is not None]
    assert told == pytest.approx([0.4, 0.4]), "the mean of 0.3, 0.4 and 0.5"


@pytest.mark.parametrize("trials", [6])
def test_the_best_is_listed_once(sweep: Callable[..., SweepResult], trials: int) -> None:
    result = sweep(space=SPACE, trials=trials)
    history: SweepHistory = result.history
    assert len(history.ranked()) == len({trial.started.config_id for trial in result})
    assert result.exit_code == 0
