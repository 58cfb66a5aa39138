"""Every sampler and pruner runs a whole sweep, proposes after a resume what it would have proposed, or refuses in a line."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pytest

from fer_models import AlexNetConfig, LeNetConfig, Recipe
from sweeps import Space, TrialConfig
from sweeps.driver.runner import InlineRunner
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from sweeps.search.pruners import Median, make_pruner
from sweeps.search.samplers import grid_points
from sweeps.search.sampling.singly import share_of, value_at
from sweeps.search.study import Study
from sweeps.space import Pruner, Sampler
from sweeps.spaces import SPACES
from sweeps.spec import SweepSpec, recorded_spec
from sweeps.sweep import SweepResult
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import SPACE as CONDITIONAL
from tests.sweeps.fake_trials import config, ended, metrics, open_desk, report, spec, take_all
from tracking.record.events import Act, Lengthened, TrialStarted, Wanted
from tracking.record.history import SweepHistory


def plain(trial: optuna.Trial) -> TrialConfig:
    recipe = Recipe(
        lr=trial.suggest_float("lr", 1e-4, 1, log=True), batch_size=trial.suggest_categorical("b", [32, 64])
    )
    return TrialConfig(net=LeNetConfig(dropout=trial.suggest_float("dropout", 0, 0.8, step=0.1)), recipe=recipe)


def stepped(trial: optuna.Trial) -> TrialConfig:
    """2 + 3 x 2 = 8 combinations: alexnet alone has a dropout and a norm."""
    recipe = Recipe(lr=trial.suggest_categorical("lr", [0.01, 0.1]))
    if trial.suggest_categorical("net", ["lenet", "alexnet"]) == "lenet":
        return TrialConfig(net=LeNetConfig(), recipe=recipe)
    dropout = trial.suggest_float("dropout", 0.1, 0.5, step=0.2)
    return TrialConfig(net=AlexNetConfig(dropout=dropout), recipe=recipe)


def numbers(trial: optuna.Trial) -> TrialConfig:
    recipe = Recipe(lr=trial.suggest_float("lr", 1e-4, 1, log=True), batch_size=trial.suggest_int("b", 16, 128))
    return TrialConfig(net=LeNetConfig(dropout=trial.suggest_float("dropout", 0, 0.8, step=0.1)), recipe=recipe)


NUMBERS = Space(suggest=numbers, max_epochs=4, trials=14, first_rung_epochs=1, name="numbers")
PLAIN = Space(suggest=plain, max_epochs=4, trials=14, first_rung_epochs=1, name="plain")
STEPPED = Space(suggest=stepped, max_epochs=2, trials=3, first_rung_epochs=1, name="stepped")


def by_settings(task: Task) -> Iterator[Message]:
    for epoch in range(1, task.epochs + 1):
        value = 0.5 - abs(task.config.recipe.lr - 0.03) / (3 * epoch)
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value))
    yield TrialEnd(attempt=task.attempt, state="ended")


def swept(folder: Path, space: Space, trials: int = 14) -> tuple[SweepHistory, list[Any]]:
    asked = spec(trials=trials, max_epochs=space.max_epochs)
    desk = open_desk(folder, space, asked)
    InlineRunner().run(desk.director, by_settings)
    desk.director.leave()
    return desk.director.history, desk.events()


@pytest.mark.parametrize("sampler", [kind for kind in get_args(Sampler) if kind != "grid"])
def test_a_resumed_sweep_proposes_what_an_undisturbed_one_would(tmp_path: Path, sampler: Sampler) -> None:
    space = replace({"gp": PLAIN, "cmaes": NUMBERS}.get(sampler, CONDITIONAL), sampler=sampler)
    trials = 30 if sampler == "nsgaii" else 14  # beyond those that each draws at random first
    history, events = swept(tmp_path / "sweep", space, trials)
    assert len(history.trials) == trials
    assert not history.unfinished
    started = [place for place, event in enumerate(events) if isinstance(event, TrialStarted) and not event.baseline]
    for place in started[-3:]:
        rebuilt = Study(tmp_path / "again.log", space, spec().seed, events[:place])
        assert rebuilt.propose(events[place].trial).params == events[place].params


@pytest.mark.parametrize("pruner", get_args(Pruner))
def test_every_pruner_runs_a_sweep(tmp_path: Path, pruner: Pruner) -> None:
    history, _ = swept(tmp_path, replace(PLAIN, pruner=pruner, sampler="random"), trials=30)
    states = {trial.state for trial in history.trials.values()}
    assert states == ({"done"} if pruner == "none" else {"done", "pruned"})
    best = max(history.trials.values(), key=lambda trial: 0.5 - abs(trial.started.params["lr"] - 0.03))
    assert best.state == "done"


def hill(params: dict[str, Any]) -> float:
    return (
        1 - (math.log10(params["lr"]) + 3) ** 2 / 10 - (params["b"] / 128 - 0.9) ** 2 - (params["dropout"] - 0.7) ** 2
    )


@pytest.mark.parametrize("sampler", ["cmaes", "nsgaii"])
def test_evolution_climbs(tmp_path: Path, sampler: Sampler) -> None:
    """The last 20 of 80 trials are better than random ones, also where four run at a time."""

    def last(kind: Sampler, seed: int) -> float:
        study, values = (
            Study(tmp_path / "study.log", replace(NUMBERS, sampler=kind, pruner="none"), seed),
            list[float](),
        )
        for begun in range(0, 80, 4):
            drawn = [hill(study.propose(number).params) for number in range(begun, begun + 4)]
            for number, value in zip(range(begun, begun + 4), drawn, strict=True):
                study.finish(number, "value", value)
            values += drawn
        return sum(values[-20:]) / 20

    found = [last(sampler, seed) for seed in range(3)]
    assert min(found) > max(last("random", seed) for seed in range(3)) + 0.15, found


def test_nsgaii_recombines_what_only_some_trials_have(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.log", replace(STEPPED, sampler="nsgaii", pruner="none"), 7)
    for number in range(60):
        params = study.propose(number).params
        study.finish(number, "value", params.get("dropout", 0.0) + params["lr"])
    late = [study.propose(number).params for number in range(60, 80)]
    assert sum(one.get("dropout") == 0.5 and one["lr"] == 0.1 for one in late) > 10, "the best of 8 combinations"


def test_a_grid_has_each_combination_once_also_after_a_resume(tmp_path: Path) -> None:
    space = replace(STEPPED, sampler="grid")
    assert len(grid_points(space)) == 8
    history, events = swept(tmp_path / "sweep", space, trials=8)
    drawn = [trial.started.params for trial in history.trials.values()]
    assert sorted(map(repr, drawn)) == sorted(map(repr, grid_points(space)))
    half = next(place for place, event in enumerate(events) if isinstance(event, TrialStarted) and event.trial == 5)
    rebuilt = Study(tmp_path / "again.log", space, spec().seed, events[:half])
    assert [rebuilt.propose(number).params for number in (5, 6, 7)] == drawn[5:]


@pytest.mark.parametrize(
    ("low", "high", "step", "values"), [(0, 0.3, 0.1, [0, 0.1, 0.2, 0.3]), (0.1, 0.7, 0.2, [0.1, 0.3, 0.5, 0.7])]
)
def test_a_grid_of_steps_ends_within_its_range(
    sweep: Callable[..., SweepResult], low: float, high: float, step: float, values: list[float]
) -> None:
    """0 + 3 x 0.1 and 0.1 + 3 x 0.2 are rounded to more than 0.3 and 0.7."""

    def suggest(trial: optuna.Trial) -> TrialConfig:
        return config(momentum=trial.suggest_float("momentum", low, high, step=step))

    done = sweep(space=Space(suggest=suggest, name="steps"), sampler="grid", epochs=1)
    drawn = sorted(trial.started.params["momentum"] for trial in done)
    assert drawn == pytest.approx(values)
    assert drawn[-1] == high


@pytest.mark.parametrize("is_a_point", [False, True])
def test_a_trial_that_a_person_asked_for_takes_no_point_of_the_grid(tmp_path: Path, is_a_point: bool) -> None:
    """Nor if its settings are those of trial 4: a resumed sweep proposes them again, as the running one does."""
    space = replace(STEPPED, sampler="grid")
    history, events = swept(tmp_path / "sweep", space, trials=8)
    drawn = [trial.started.params for trial in history.trials.values()]
    third = next(place for place, event in enumerate(events) if isinstance(event, TrialStarted) and event.trial == 3)
    wanted = Wanted(act="a", verb="try", source=0, config={}, epochs=1)
    params = drawn[4] if is_a_point else {}
    asked = history.trials[4].started.model_copy(update={"trial": 3, "params": params, "wanted": wanted})
    rebuilt = Study(tmp_path / "again.log", space, spec().seed, [*events[:third], asked])
    assert [rebuilt.propose(number).params for number in (4, 5)] == drawn[3:5]


def test_a_sweep_over_a_grid_has_as_many_trials_as_points(tmp_path: Path) -> None:
    def plan(**options: Any) -> SweepSpec:
        return make_plan(STEPPED, Options.parse({"out": tmp_path, "sampler": "grid", **options}), find_hardware).spec

    assert plan().trials == 8
    assert plan(trials=5).trials == 5
    with pytest.raises(InputError, match="--trials 9: the grid of stepped has 8 points; give at most 8"):
        plan(trials=9)


def test_evenly_spread_trials_fill_every_half_of_each_parameter(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.log", replace(PLAIN, sampler="qmc"), 7)
    drawn = [study.propose(number).params for number in range(16)]
    assert sum(one["lr"] < 1e-2 for one in drawn) == 8
    assert sum(one["b"] == 32 for one in drawn) == 8
    assert len({one["lr"] for one in drawn}) == 16


def test_after_thirty_evenly_spread_trials_tpe_draws_one_in_four_and_the_sequence_continues(tmp_path: Path) -> None:
    even = Study(tmp_path / "even.log", replace(PLAIN, sampler="qmc"), 7)
    spread = [even.propose(number).params for number in range(45)]
    study = Study(tmp_path / "study.log", replace(PLAIN, sampler="qmc-tpe"), 7)
    drawn = []
    for number in range(50):
        drawn.append(study.propose(number).params)
        study.finish(number, "value", 0.5 - abs(drawn[number]["lr"] - 0.01))
    by_tpe = [drawn.pop(number) for number in (49, 45, 41, 37, 33)]
    assert drawn == spread
    assert all(params not in spread for params in by_tpe)


def test_no_two_settings_are_tied_in_the_first_evenly_spread_trials(tmp_path: Path) -> None:
    """In a Sobol sequence 7 of the 66 pairs are."""

    def twelve(trial: optuna.Trial) -> TrialConfig:
        chosen = [trial.suggest_categorical(f"choice{place}", [0, 1]) for place in range(12)]
        return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.01 + 0.001 * sum(chosen)))

    for seed in range(5):
        study = Study(tmp_path / "study.log", Space(suggest=twelve, sampler="qmc", name="twelve"), seed)
        drawn = np.array([list(study.propose(number).params.values()) for number in range(16)])
        assert (drawn.sum(axis=0) == 8).all()
        together = {(a, b): len(set(zip(drawn[:, a], drawn[:, b], strict=True))) for a in range(12) for b in range(a)}
        assert min(together.values()) > 2


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (optuna.distributions.IntDistribution(1, 4), [1, 1, 2, 3, 4, 4]),
        (optuna.distributions.FloatDistribution(0, 1, step=0.5), [0, 0, 0.5, 0.5, 1, 1]),
        (optuna.distributions.FloatDistribution(1e-4, 1, log=True), [1e-4, 1e-3, 1e-2, 1e-2, 1e-1, 1]),
        (optuna.distributions.CategoricalDistribution(["a", "b"]), ["a", "a", "a", "b", "b", "b"]),
    ],
)
def test_shares_become_values(distribution: Any, values: list[Any]) -> None:
    shares = (0, 0.2, 0.49, 0.51, 0.8, 1)
    found = [value_at(share, distribution) for share in shares]
    if isinstance(values[0], float) and distribution.log:
        assert found[0] == pytest.approx(1e-4)
        assert found[-1] == pytest.approx(1)
        assert sorted(found) == found
    else:
        assert found == pytest.approx(values) if not isinstance(values[0], str) else found == values


@pytest.mark.parametrize(
    "distribution",
    [
        optuna.distributions.IntDistribution(1, 40, log=True),
        optuna.distributions.IntDistribution(0, 12, step=3),
        optuna.distributions.FloatDistribution(0, 1, step=0.25),
        optuna.distributions.FloatDistribution(1e-4, 1, log=True),
    ],
)
def test_values_become_shares_again(distribution: Any) -> None:
    for share in np.linspace(0, 1, 50):
        value = value_at(float(share), distribution)
        assert value_at(share_of(value, distribution), distribution) == pytest.approx(value)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (CONDITIONAL, {"sampler": "gp"}, "--sampler gp: 'dropout', 'norm' of fake_space are drawn in some trials only"),
        (
            CONDITIONAL,
            {"sampler": "cmaes"},
            "--sampler cmaes: 'dropout', 'norm' of fake_space are drawn in some trials only, which CMA-ES cannot model; "
            ".*'net'.* of fake_space are choices, and CMA-ES searches only numbers; use --sampler nsgaii",
        ),
        (PLAIN, {"sampler": "grid"}, "--sampler grid: 'lr' of plain: a range without steps has no grid"),
        (
            PLAIN,
            {"sampler": "tpee"},
            "--sampler tpee: must be 'tpe', 'qmc-tpe', 'random', 'qmc', 'grid', 'gp', 'cmaes' or 'nsgaii'",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, space: Space, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(space, Options.parse({"out": tmp_path, **options}), find_hardware)
    assert list(tmp_path.iterdir()) == []


def test_the_default_is_what_was_measured_to_be_the_fastest() -> None:
    space = Space(suggest=plain)
    assert (space.sampler, space.pruner) == ("qmc-tpe", "promoting")
    assert {(space.sampler, space.pruner) for space in SPACES.values()} == {("qmc-tpe", "promoting")}


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "before they were"])
def test_an_older_sweep_goes_on_with_the_sampler_and_pruner_that_it_had(
    sweep: Callable[..., SweepResult], recorded: bool
) -> None:
    """Begun when TPE and halving were the default; journals of that time may not name them."""
    space = replace(CONDITIONAL, sampler=Space.sampler, pruner=Space.pruner)
    asked: dict[str, Any] = {"space": space, "baselines": "all", "epochs": 4, "body": by_settings}
    whole = sweep(trials=14, sampler="tpe", pruner="halving", name="whole", **asked)
    first = sweep(trials=4, sampler="tpe", pruner="halving", **asked)
    if not recorded:
        journal = first.folder.journal
        journal.write_text(journal.read_text().replace('"sampler":"tpe","pruner":"halving",', ""))
        assert "halving" not in journal.read_text()
    again = sweep(trials=14, resume=True, **asked)
    assert (recorded_spec(again.history).sampler, recorded_spec(again.history).pruner) == ("tpe", "halving")
    assert [trial.started.params for trial in again] == [trial.started.params for trial in whole]
    assert [(trial.state, trial.last_epoch) for trial in again] == [(one.state, one.last_epoch) for one in whole]
    assert not any(trial.attempts for trial in again), "none waited at a rung"


def test_the_median_rule_by_hand() -> None:
    rule = Median(first_rung_epochs=1, epochs_of=lambda _: 2)
    for trial, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5)):
        assert rule.report(trial, 1, value) is None, "nothing is completed yet"
        assert rule.report(trial, 2, value) is None
    assert rule.report(5, 1, 0.3) is None
    assert rule.report(6, 1, 0.25) == "stopped at epoch 1: best 0.2500 under the median 0.3000 of 5"


@pytest.mark.parametrize(("pruner", "word"), [("hyperband", "of bracket"), ("median", "under the median")])
def test_a_sweep_that_was_extended_prunes_after_a_resume_as_before(tmp_path: Path, pruner: Pruner, word: str) -> None:
    """Seven trials of 4 epochs, then 30 of 12, each worse than the one before."""
    space = replace(PLAIN, pruner=pruner, sampler="random", reduction_factor=3, max_epochs=4)
    asked = spec(trials=37, max_epochs=4)
    extended = asked.model_copy(update={"max_epochs": 12})
    reasons = []
    for resumes in (False, True):
        desk = open_desk(tmp_path / str(resumes), space, asked)
        for number in range(7):
            task = desk.task()
            take_all(desk, task, [0.5 + 0.02 * number + 0.01 * epoch for epoch in range(4)])
            desk.director.take(task.trial, ended(task))
        longer = extended.model_dump(mode="json")
        desk.director.record_act(Act(act="1", verb="extend", who="ana", asked_ms=0, answer="", spec=longer))
        if resumes:
            desk.journal.close()
            desk = open_desk(tmp_path / str(resumes), replace(space, max_epochs=12), extended)
        for number in range(30):
            task = desk.task()
            take_all(desk, task, [0.4 - 0.01 * number] * 3)
        trials = desk.director.history.trials.values()
        reasons.append({trial.number: trial.verdict.reason for trial in trials if trial.verdict})
    assert reasons[0] == reasons[1]
    assert sum(word in reason for number, reason in reasons[0].items() if number >= 7) > 5


def test_a_trial_is_complete_for_the_median_at_its_own_length(tmp_path: Path) -> None:
    """Five trials of 2 epochs get 4: then they are rivals up to epoch 2 only, until they are done again."""
    space = replace(PLAIN, pruner="median", sampler="random", max_epochs=2)
    asked = spec(trials=7, max_epochs=2)
    desk = open_desk(tmp_path / "night", space, asked)
    tasks = [desk.task() for _ in range(5)]
    for task in tasks:
        take_all(desk, task, [0.5, 0.5])
        desk.director.take(task.trial, ended(task))
    extended = asked.model_copy(update={"max_epochs": 4}).model_dump(mode="json")
    changes = tuple(Lengthened(trial=task.trial, epochs=4, epoch=2) for task in tasks)
    desk.director.record_act(
        Act(act="1", verb="extend", who="ana", asked_ms=0, answer="", lengthened=changes, spec=extended)
    )
    again = [desk.task() for _ in range(5)]
    for task in again:
        desk.director.take(task.trial, report(task, 3, 0.9))
    first, second = desk.task(), desk.task()
    take_all(desk, first, [0.6, 0.6, 0.6])
    assert desk.director.history.trials[first.trial].verdict is None, "no trial of 4 epochs is done"
    for task in again:
        desk.director.take(task.trial, report(task, 4, 0.9))
        desk.director.take(task.trial, ended(task))
    take_all(desk, second, [0.4, 0.4])
    verdict = desk.director.history.trials[second.trial].verdict
    assert verdict
    assert verdict.reason == "stopped at epoch 1: best 0.4000 under the median 0.5000 of 5", (
        "those that are done, once each"
    )


def test_one_epoch_lets_one_in_nine_go_on() -> None:
    rule = make_pruner("one-epoch", PLAIN, 0)
    verdicts = [rule.report(trial, 1, trial % 9 / 10) for trial in range(90)]
    assert 10 <= sum(verdict is None for verdict in verdicts) <= 20
    assert rule.report(8, 2, 0.0) is None, "there is no second rung"
