"""Where a user expects good values: `Space(priors=…)`."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_models import LeNetConfig, Recipe
from sweeps import InputError, Prior, Space, SweepResult, TrialConfig
from sweeps.search.proposals import random_trials
from sweeps.search.samplers import check_priors
from sweeps.search.study import Study
from sweeps.space import Sampler
from tests.sweeps.fake_trials import config
from tracking.record.events import Event, TrialEnded, TrialStarted

Sweep = Callable[..., SweepResult]

TURNS = (1, 3, 7, 15)
"""The trials that are drawn near the priors."""


def suggest(trial: optuna.Trial) -> TrialConfig:
    recipe = Recipe(
        lr=trial.suggest_float("lr", 1e-5, 1, log=True),
        batch_size=trial.suggest_int("batch_size", 1, 100),
        lr_policy=trial.suggest_categorical("lr_policy", ["constant", "cosine", "onecycle"]),
    )
    return TrialConfig(net=LeNetConfig(), recipe=recipe)


SPACE = Space(suggest=suggest, name="wide", pruner="none")
PRIORS = {"lr": 0.01, "batch_size": Prior(60, 2), "lr_policy": "cosine"}


def draws(folder: Path, space: Space, count: int, seed: int = 7) -> list[dict[str, Any]]:
    study, drawn = Study(folder / f"{seed}.log", space, seed), []
    for number in range(count):
        drawn.append(study.propose(number).params)
        study.finish(number, "value", 0.5)
    return drawn


@pytest.mark.parametrize("sampler", ["tpe", "qmc-tpe", "qmc", "random", "gp", "nsgaii"])
def test_some_trials_are_drawn_near_the_priors(tmp_path: Path, sampler: Sampler) -> None:
    drawn = draws(tmp_path, replace(SPACE, sampler=sampler, priors=PRIORS), 16)
    alone = draws(tmp_path, replace(SPACE, sampler=sampler), 16)
    for number in TURNS:
        assert abs(math.log10(drawn[number]["lr"]) + 2) < 2, "a tenth of five decades is half a decade"
        assert abs(drawn[number]["batch_size"] - 60) <= 8
    near = [number for number in range(16) if abs(drawn[number]["batch_size"] - 60) <= 8]
    assert len(near) < 16, "the others are the sampler's"
    if sampler in ("qmc", "random"):
        assert [drawn[one] for one in range(16) if one not in TURNS] == [
            alone[one] for one in range(16) if one not in TURNS
        ]


def test_a_choice_is_drawn_half_of_the_time_and_the_spread_is_a_standard_deviation(tmp_path: Path) -> None:
    space = replace(SPACE, priors={"lr": Prior(1e-4, 0.25), "lr_policy": "onecycle"})
    drawn = [draws(tmp_path, space, 2, seed)[1] for seed in range(200)]
    assert 0.55 < sum(one["lr_policy"] == "onecycle" for one in drawn) / 200 < 0.78  # 1/2 + 1/2 of 1/3
    logs = [math.log10(one["lr"]) for one in drawn]
    assert abs(sum(logs) / 200 + 4) < 0.06
    assert 0.21 < math.sqrt(sum((one + 4) ** 2 for one in logs) / 200) < 0.29
    assert all(1e-5 <= one["lr"] <= 1 for one in drawn)


def test_no_more_trials_than_the_binary_logarithm_are_drawn_near_priors(tmp_path: Path) -> None:
    """So a wrong prior costs four of 30 trials."""
    space = replace(SPACE, sampler="random", priors={"batch_size": Prior(60, 1e-6)})
    for count in (1, 2, 10, 30, 64):
        drawn = draws(tmp_path, space, count)
        alone = draws(tmp_path, replace(space, priors={}), count)
        near = sum(one != other for one, other in zip(drawn, alone, strict=True))
        assert near == int(math.log2(count))


@pytest.mark.parametrize(
    ("draw", "prior", "nearest"),
    [
        (lambda trial: trial.suggest_int("batch_size", 1, 8, log=True), Prior(2, 0.02), 2),
        (lambda trial: trial.suggest_int("batch_size", 1, 64, log=True), Prior(8, 0.005), 8),
        (lambda trial: trial.suggest_int("batch_size", 1, 21), Prior(2, 0.1), 2),
        (lambda trial: trial.suggest_int("batch_size", 1, 21, step=5), Prior(6, 0.5), 6),
        (lambda trial: trial.suggest_int("batch_size", 1, 21), Prior(1, 0.1), 1),
        (lambda trial: int(trial.suggest_float("batch_size", 1, 21, step=4)), Prior(17, 0.4), 17),
    ],
)
def test_a_narrow_prior_of_a_range_with_steps_gives_its_centre(
    tmp_path: Path, draw: Callable[[optuna.Trial], int], prior: Prior, nearest: int
) -> None:
    space = Space(suggest=lambda trial: config(batch_size=draw(trial)), priors={"batch_size": prior}, pruner="none")
    assert {draws(tmp_path, space, 2, seed)[1]["batch_size"] for seed in range(200)} == {nearest}


def test_nsgaii_draws_parameters_without_a_prior_from_its_parents(tmp_path: Path) -> None:
    def breed(trial: optuna.Trial) -> TrialConfig:
        sizes = trial.suggest_categorical("batch_size", list(range(1, 51)))
        momentum, decay = (trial.suggest_float(name, 0.1, 0.9) for name in ("momentum", "weight_decay"))
        return config(trial.suggest_float("lr", 1e-3, 0.1, log=True), sizes, momentum=momentum, weight_decay=decay)

    space = Space(suggest=breed, name="bred", sampler="nsgaii", priors={"lr": 0.01}, pruner="none")
    one = Study(tmp_path / "bred.log", space, 7).propose(0)
    complete: list[Event] = []
    for number in range(31):
        params = one.params | {"batch_size": 7}
        complete += [
            TrialStarted(trial=number, config_id="", config={}, seed=0, epochs=1, params=params,
                         distributions=one.distributions),
            TrialEnded(trial=number, state="done", best={"best_val_accuracy": 0.5}, epochs=1, told="value"),
        ]  # fmt: skip
    drawn = [Study(tmp_path / "bred.log", space, seed, complete).propose(31).params for seed in range(40)]
    assert sum(one["batch_size"] == 7 for one in drawn) > 20, "a quarter is mutated"


def test_a_resumed_sweep_draws_what_an_undisturbed_one_would(sweep: Sweep) -> None:
    space = Space(suggest=lambda trial: config(trial.suggest_float("lr", 1e-3, 0.1, log=True)), name="lrs",
                  priors={"lr": 0.05}, pruner="none")  # fmt: skip
    whole = sweep(space=space, trials=9, epochs=1, name="whole")
    sweep(space=space, trials=4, epochs=1, name="parts")
    parts = sweep(space=space, trials=9, epochs=1, name="parts", resume=True)
    assert [trial.started.params for trial in parts] == [trial.started.params for trial in whole]


def test_priors_that_the_space_cannot_have_are_named_at_once(sweep: Sweep, out: Path) -> None:
    space = replace(SPACE, priors={"lr": 5.0, "batch_sise": 60, "lr_policy": "step", "batch_size": "many"})
    with pytest.raises(InputError) as refused:
        sweep(space=space)
    for part in (
        "priors of wide: 'lr' 5.0: the space has a number from 1e-05 to 1 on a log scale",
        "no parameter 'batch_sise'; did you mean 'batch_size'?",
        "'lr_policy' 'step': the space has one of constant, cosine, onecycle",
        "'batch_size' 'many': the space has a whole number from 1 to 100",
    ):
        assert part in str(refused.value)
    assert not out.exists()
    with pytest.raises(InputError, match="priors: lr: spread must be above 0, got -1"):
        Space(suggest=suggest, priors={"lr": Prior(0.1, -1)})


def test_a_tuple_among_the_choices_may_be_a_prior(sweep: Sweep) -> None:
    """The second trial is drawn near it: of 24 seeds a half, and of the rest a fiftieth, have it."""
    pairs = [(size, size) for size in range(1, 51)]

    def suggest(trial: optuna.Trial) -> TrialConfig:
        return config(batch_size=trial.suggest_categorical("pair", pairs)[0])  # type: ignore[arg-type]

    space = Space(suggest=suggest, name="pairs", priors={"pair": (8, 8)}, pruner="none")
    seconds = [sweep(space=space, trials=2, epochs=1, seed=seed, name=str(seed))[1] for seed in range(24)]
    assert 4 < sum(trial.started.params["pair"] == "(8, 8)" for trial in seconds) < 20


def test_priors_that_fit_are_checked_with_few_draws() -> None:
    drawn = []

    def counted(trial: optuna.Trial) -> TrialConfig:
        drawn.append(trial)
        return suggest(trial)

    check_priors(replace(SPACE, suggest=counted, priors=PRIORS), random_trials(0))
    assert len(drawn) < 5


def test_a_setting_that_is_fixed_may_have_a_prior(sweep: Sweep) -> None:
    done = sweep(
        space=replace(SPACE, priors={"lr": 0.01, "batch_size": 60}),
        settings={"recipe.batch_size": 4},
        epochs=1,
        trials=2,
    )
    assert {trial.started.config["recipe"]["batch_size"] for trial in done} == {4}
