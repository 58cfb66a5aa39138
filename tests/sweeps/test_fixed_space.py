"""Settings that `--set` fixes: not drawn, not learned, not shown as searched; and the names of baselines they change."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_models import AlexNetConfig, CompactResNetConfig, LeNetConfig, Recipe
from sweeps import Baseline, InputError, Space, SweepResult, TrialConfig
from sweeps.cli.main import main
from sweeps.config import parse_settings
from sweeps.fixed_space import fix_settings
from sweeps.search.proposals import random_trials
from sweeps.search.study import Study
from sweeps.spaces.find import find_space
from sweeps.spaces.zoo_space import SPACES
from tests.sweeps.fake_trials import SPACE, config, only_sampled
from tracking.figures.search_figures import searched_settings
from tracking.record.history import SweepHistory

Capture = pytest.CaptureFixture[str]
Suggest = Callable[[optuna.Trial], TrialConfig]


def drawn(space: Space, *assignments: str) -> tuple[set[str], list[TrialConfig]]:
    """The parameters that fifty draws still ask Optuna for, and the configurations."""
    fixed = fix_settings(space, parse_settings(assignments), seed=0)
    trials = [trial for trial, _ in zip(random_trials(1), range(50), strict=False)]
    configs = [fixed.draw(trial) for trial in trials]
    return {name for trial in trials for name in trial.params}, configs


def named(trial: optuna.Trial) -> TrialConfig:
    return config(trial.suggest_float("lr", 0.01, 0.1), trial.suggest_categorical("batch_size", [64, 128]))


def exponents(trial: optuna.Trial) -> TrialConfig:
    """A parameter that has a setting's name and not its meaning, and one that has another name."""
    return config(10 ** trial.suggest_float("lr", -3, -1), 2 ** trial.suggest_int("log2_batch", 5, 7))


def branches(trial: optuna.Trial) -> TrialConfig:
    """The norm decides more than itself: which parameter the rate is drawn as, and from where."""
    norm = trial.suggest_categorical("norm", ["batch", "lrn"])
    lr = trial.suggest_float("lr", 0.02, 0.06) if norm == "batch" else trial.suggest_float("lr_lrn", 0.005, 0.01)
    return TrialConfig(net=AlexNetConfig(norm=norm), recipe=Recipe(lr=lr))


def computed(trial: optuna.Trial) -> TrialConfig:
    """One parameter behind a setting, and one behind two."""
    width, pace = trial.suggest_categorical("width", [24, 32]), trial.suggest_float("pace", 0.1, 1)
    net = CompactResNetConfig(widths=(width, 2 * width, 4 * width, 8 * width), dropout=pace / 2)
    return TrialConfig(net=net, recipe=Recipe(lr=pace / 10))


def rarely_used(trial: optuna.Trial) -> TrialConfig:
    """A parameter that matters for some draws only, and then for a setting that is not fixed."""
    lr, dropout = trial.suggest_float("lr", 0.01, 0.1), trial.suggest_float("dropout", 0, 0.5)
    return TrialConfig(net=LeNetConfig(dropout=dropout if lr > 0.09 else 0), recipe=Recipe(lr=lr))


@pytest.mark.parametrize(
    ("suggest", "assignments", "left"),
    [
        (named, ["lr=0.05"], {"batch_size"}),
        (named, ["lr=0.5"], {"batch_size"}),  # outside the space's range
        (named, ["batch_size=32"], {"lr"}),  # none of the space's choices
        (named, ["flip=0.5"], {"lr", "batch_size"}),  # nothing that is drawn
        (exponents, ["lr=0.01"], {"log2_batch"}),
        (exponents, ["batch_size=64"], {"lr"}),
        (branches, ["norm=batch"], {"lr"}),
        (branches, ["norm=lrn"], {"lr_lrn"}),
        (branches, ["lr=0.03"], {"norm"}),
        (computed, ["widths=[16,32,64,128]"], {"pace"}),
        (computed, ["lr=0.05"], {"width", "pace"}),
        (rarely_used, ["momentum=0.5"], {"lr", "dropout"}),
    ],
)
def test_what_a_setting_decides_is_not_drawn(suggest: Suggest, assignments: list[str], left: set[str]) -> None:
    names, configs = drawn(only_sampled(draw=suggest), *assignments)
    assert names == left
    for setting, value in parse_settings(assignments).items():
        part, _, field = setting.partition(".")
        trained = {str(one.model_dump(mode="json")[part][field]) for one in configs}
        assert trained == {str(value)}


def test_a_choice_that_is_fixed_decides_what_hangs_on_it() -> None:
    _, configs = drawn(only_sampled(draw=branches), "norm=batch")
    assert all(one.recipe.lr >= 0.02 for one in configs)


@pytest.mark.parametrize(
    ("name", "assignments", "gone"),
    [
        ("alexnet_space", ["lr=0.03"], {"lr", "lr_lrn"}),
        ("alexnet_space", ["lr_policy=step", "gamma=0.1", "step_iterations=9", "schedule=exact"], {"lr_policy"}),
        ("compact_resnet_space", ["widths=[16,32,64,128]", "erase=0"], {"width", "erase"}),
        ("vgg_small_tuned_space", ["dropouts=[0,0,0,0,0]"], {f"dropout_{place}" for place in range(5)}),
        (
            "zoo_space",
            ["batch_size=32"],
            {f"{net}.batch_size" for net in SPACES},
        ),
    ],
)
def test_the_built_in_spaces(name: str, assignments: list[str], gone: set[str]) -> None:
    space = find_space(name)
    assert drawn(space)[0] - drawn(space, *assignments)[0] == gone


def test_the_sampler_goes_on_as_if_the_parameter_were_not_there(tmp_path: Path) -> None:
    def without(trial: optuna.Trial) -> TrialConfig:
        return config(0.05, trial.suggest_categorical("batch_size", [64, 128]))

    def proposals(space: Space) -> list[tuple[TrialConfig | None, dict[str, Any]]]:
        study, made = Study(tmp_path / "study.log", space, 7), []
        for number in range(15):
            proposal = study.propose(number)
            made.append((proposal.config, proposal.params))
            study.finish(number, "value", number * 4 % 15 / 15)
        return made

    fixed = fix_settings(only_sampled(draw=named), {"recipe.lr": 0.05}, seed=7)
    assert proposals(fixed) == proposals(only_sampled(draw=without))


def test_a_sweep_records_and_shows_what_was_searched_alone(run: Callable[..., int], out: Path) -> None:
    assert run("--set", "lr=0.05", "--trials", "4") == 0
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    assert {trial.started.config["recipe"]["lr"] for trial in history.trials.values()} == {0.05}
    assert all(trial.started.params == {} for trial in history.trials.values())
    assert searched_settings(history) == []


def test_pictures_of_an_older_sweep_leave_out_what_was_drawn_in_vain(sweep: Callable[..., SweepResult]) -> None:
    """Journals of format 1 have the drawn rate of each trial, whatever rate was fixed."""
    history = sweep(trials=4, epochs=1).history
    assert "lr" in {one.name for one in searched_settings(history)}
    history.started.spec["settings"] = {"recipe.lr": 0.05}
    names = {one.name for one in searched_settings(history)}
    assert "lr" not in names
    assert "batch_size" in names


def test_settings_that_a_space_refuses_are_refused(run: Callable[..., int], out: Path) -> None:
    with pytest.raises(InputError, match=r"--set: recipe.lr: must be above 0, got 0"):
        fix_settings(SPACE, {"recipe.lr": 0}, seed=0)


# Names of baselines


def test_a_changed_baseline_is_named_so_and_carries_no_report() -> None:
    first, second = fix_settings(SPACE, {"recipe.lr": 0.02, "augment.flip": 0.5}, seed=0).baselines
    assert (first.name, first.reported) == ("first report, changed (lr, flip)", "")
    assert second.name == "second report, changed (flip)", "its rate was .02 already"
    assert (first.config.recipe.lr, first.config.augment.flip) == (0.02, 0.5)
    same = fix_settings(SPACE, {"recipe.lr": 0.01}, seed=0).baselines[0]
    assert same == SPACE.baselines[0]


def test_its_name_stands_everywhere(run: Callable[..., int], out: Path, capsys: Capture) -> None:
    assert run("--set", "momentum=0.5", "--trials", "2") == 0
    shown = capsys.readouterr().out
    assert "trial 0 report, changed (momentum): started" in shown
    assert re.search(r"0 report, changed\s+\(momentum\)", shown)
    assert "reported" not in shown
    assert "50 %" not in shown
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    assert history.trials[0].started.baseline == "report, changed (momentum)"
    assert main(["report", "night", "--out", str(out)]) == 0
    page = (out / "night" / "figures" / "report.html").read_text()
    assert "report, changed (momentum) (trial 0)" in page
    assert "What the reports say" not in page


def test_a_resume_goes_on_with_the_changed_baselines(sweep: Callable[..., SweepResult]) -> None:
    asked: dict[str, Any] = {"settings": {"recipe.momentum": 0.5}, "epochs": 1}
    sweep(trials=3, **asked)
    gained = replace(SPACE, baselines=[*SPACE.baselines, Baseline("third report", config())])
    history = sweep(space=gained, trials=5, resume=True, **asked).history
    names = [trial.started.baseline for trial in history.trials.values()]
    assert names == ["first report, changed (momentum)", "second report, changed (momentum)", None, None, None]
