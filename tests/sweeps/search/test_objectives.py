"""Several objectives: drawn for, ranked at the rungs, rebuilt from the journal, or refused in a line."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_models import LeNetConfig, Recipe
from sweeps import Space, TrialConfig
from sweeps.driver.runner import InlineRunner
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from sweeps.search.pruners import make_pruner
from sweeps.search.study import Study
from sweeps.space import Pruner, Sampler
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import metrics, open_desk, spec
from tracking.metrics.front import pareto_front
from tracking.record.events import Event, TrialStarted
from tracking.record.history import SweepHistory

BOTH = ("val_accuracy", "parameters")


def suggest(trial: optuna.Trial) -> TrialConfig:
    """A wider net is more accurate, and the learning rate is best at 0.03."""
    recipe = Recipe(lr=trial.suggest_float("lr", 1e-3, 1, log=True))
    return TrialConfig(net=LeNetConfig(dropout=trial.suggest_float("dropout", 0, 0.8)), recipe=recipe)


SPACE = Space(suggest=suggest, max_epochs=4, trials=20, first_rung_epochs=1, name="two", objectives=BOTH)


def parameters(config: TrialConfig) -> float:
    assert isinstance(config.net, LeNetConfig)
    return round(1000 + 1e5 * config.net.dropout)


def accuracy(config: TrialConfig, epoch: int) -> float:
    return 0.4 + parameters(config) / 4e5 - abs(config.recipe.lr - 0.03) / 3 + epoch / 100


def body(task: Task) -> Iterator[Message]:
    for epoch in range(1, task.epochs + 1):
        costs = {"parameters": parameters(task.config)}
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(accuracy(task.config, epoch)) | costs)
    yield TrialEnd(attempt=task.attempt, state="ended")


def swept(folder: Path, space: Space, trials: int) -> tuple[SweepHistory, list[Event]]:
    asked = spec(trials=trials, max_epochs=4, objectives=space.objectives)
    desk = open_desk(folder, space, asked)
    InlineRunner().run(desk.director, body)
    desk.director.leave()
    return desk.director.history, desk.events()


@pytest.mark.parametrize("sampler", ["tpe", "qmc-tpe", "gp", "nsgaii"])
def test_a_resumed_sweep_proposes_what_an_undisturbed_one_would(tmp_path: Path, sampler: Sampler) -> None:
    trials = 14 if sampler == "gp" else 36
    space = replace(SPACE, sampler=sampler)
    history, events = swept(tmp_path / "sweep", space, trials)
    assert len(history.trials) == trials
    assert not history.unfinished
    started = [place for place, event in enumerate(events) if isinstance(event, TrialStarted)]
    for place in started[-2:]:
        first = events[place]
        assert isinstance(first, TrialStarted)
        rebuilt = Study(tmp_path / "again.log", space, spec().seed, events[:place])
        assert rebuilt.propose(first.trial).params == first.params


@pytest.mark.parametrize("pruner", ["halving", "promoting", "hyperband", "one-epoch"])
def test_the_best_and_the_cheapest_pass_the_rungs(tmp_path: Path, pruner: Pruner) -> None:
    history, _ = swept(tmp_path, replace(SPACE, sampler="random", pruner=pruner), 30)
    done = [trial for trial in history.trials.values() if trial.state == "done"]
    assert 2 <= len(done) < 30
    cheapest = min(trial.epochs[0].metrics["parameters"] for trial in history.trials.values())
    best = max(trial.epochs[0].metrics["val_accuracy"] for trial in history.trials.values())
    if pruner == "promoting":  # the others decide as each trial comes
        assert cheapest in [trial.epochs[0].metrics["parameters"] for trial in done]
        assert best in [trial.epochs[0].metrics["val_accuracy"] for trial in done]


def test_a_rung_by_hand() -> None:
    """The third is worse than the first in both, the second is cheaper."""
    rung = make_pruner("one-epoch", replace(SPACE, reduction_factor=2), 0)
    assert [rung.report(trial, 1, value, (cost,)) for trial, value, cost in ((0, 0.5, 10), (1, 0.3, 5))] == [
        None,
        "stopped at epoch 1: rank 2 of 2",
    ]
    assert rung.report(2, 1, 0.4, (12,)) == "stopped at epoch 1: rank 3 of 3"
    assert rung.report(3, 1, 0.2, (20,)) == "stopped at epoch 1: rank 4 of 4"
    assert rung.report(4, 1, 0.6, (20,)) is None, "of a front the most accurate is first, then the cheapest"
    assert rung.report(5, 1, 0.7, (1,)) is None, "it dominates all"


@pytest.mark.parametrize("pruner", ["none", "promoting"])
def test_every_group_on_the_front_is_whole(tmp_path: Path, pruner: Pruner) -> None:
    """A wider net is more accurate by far more than seeds differ, so each size is on the front."""

    def seeds_differ_little(task: Task) -> Iterator[Message]:
        size = parameters(task.config)
        values = metrics(0.4 + size / 4e5 + task.seed % 97 / 1e4) | {"parameters": size}
        yield EpochReport(attempt=task.attempt, epoch=1, metrics=values)
        yield TrialEnd(attempt=task.attempt, state="ended")

    space = replace(SPACE, sampler="random", pruner=pruner, first_rung_epochs=8)
    asked = spec(trials=8, max_epochs=1, objectives=BOTH, replicates=3, pruner=pruner)
    desk = open_desk(tmp_path / "night", space, asked)
    InlineRunner().run(desk.director, seeds_differ_little)
    history = desk.director.history
    front = {one.trial.number for one in pareto_front(history)}
    whole = {group.first.number for group in history.groups() if group.is_whole}
    assert len(front) > 2
    assert front <= whole


def test_a_group_that_is_worse_at_no_less_cost_is_not_completed(tmp_path: Path) -> None:
    """Trials 0 to 2 are the first group. The others are 30 points worse, where seeds differ by 0.1."""
    sizes = {3: 10.0, 4: 20.0, 5: 9.0, 6: 9.0, 7: 9.0}

    def values(task: Task) -> Iterator[Message]:
        accuracy = (0.6 if task.trial < 3 else 0.3) + task.trial % 3 / 1000
        costs = {"parameters": sizes.get(task.trial, 10.0)}
        yield EpochReport(attempt=task.attempt, epoch=1, metrics=metrics(accuracy) | costs)
        yield TrialEnd(attempt=task.attempt, state="ended")

    asked = spec(trials=4, max_epochs=1, objectives=BOTH, replicates=3)
    desk = open_desk(tmp_path / "night", replace(SPACE, pruner="none"), asked)
    InlineRunner().run(desk.director, values)
    assert [len(group.members) for group in desk.director.history.groups()] == [3, 1, 1, 3], "only the last is cheaper"


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
def test_the_sampler_finds_more_of_the_front_than_random_draws(tmp_path: Path, sampler: Sampler) -> None:
    """The best accuracy of each size is at one learning rate: the closer to it, the larger the dominated area."""

    def area(kind: Sampler, seed: int) -> float:
        study = Study(tmp_path / "study.log", replace(SPACE, sampler=kind, pruner="none"), seed)
        points = []
        for number in range(60):
            config = study.propose(number).config
            assert config
            study.report(number, 1, accuracy(config, 1), (parameters(config),))
            study.finish(number, "value", accuracy(config, 1))
            points.append((parameters(config) / 1e5, accuracy(config, 1)))
        best = total = 0.0
        for (size, value), (following, _) in zip(sorted(points), [*sorted(points)[1:], (1.0, 0)], strict=True):
            best = max(best, value)
            total += best * (following - size)
        return total

    assert sum(area(sampler, seed) > area("random", seed) for seed in range(4)) >= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objective": "val_accuracy,paramters"},
            "--objective .*no objective 'paramters'; did you mean 'parameters'[^;]*$",
        ),
        (
            {"objective": "parameters,val_acuracy,parameters"},
            "no objective 'val_acuracy'; did you mean 'val_accuracy'.*'parameters' is given 2 times; "
            "val_accuracy must be the first",
        ),
        (
            {"objective": "val_accuracy,latency", "sampler": "cmaes", "pruner": "median"},
            "--objective val_accuracy,latency: --sampler cmaes optimizes one objective; use nsgaii, .*; "
            "--pruner median compares one objective; use promoting",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(
            replace(SPACE, objectives=("val_accuracy",)), Options.parse({"out": tmp_path, **options}), find_hardware
        )
    assert list(tmp_path.iterdir()) == []


def test_the_option_replaces_what_the_space_has(tmp_path: Path) -> None:
    def asked(**options: Any) -> tuple[str, ...]:
        return make_plan(SPACE, Options.parse({"out": tmp_path, **options}), find_hardware).spec.objectives

    assert asked() == BOTH
    assert asked(objective="val_accuracy") == ("val_accuracy",)
    assert asked(objective="val_accuracy,seconds") == ("val_accuracy", "seconds")
