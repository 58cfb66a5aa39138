"""The options of a sweep: one declaration gives the flag, the check, the record and the way back to a command line."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from fer_common.flags import Flag, add_flags, command_line, explain, flags
from fer_data import DataOptions
from sweeps.cli import arguments
from sweeps.cli.main import run_parser
from sweeps.errors import InputError
from sweeps.options import Options, RecordedOptions, same_trials
from tests.sweeps.fake_trials import spec

EVERY = {
    "data": DataOptions(source="faces.csv", classes=("happy", "sad"), fold=2, folds=5),
    "trials": 3, "epochs": 2, "baselines": "first", "seed": 4, "settings": {"recipe.lr": 0.1, "net.norm": "batch"},
    "runner": "inline", "device": "cpu", "cpus_per_trial": 0.5, "gpus_per_trial": 0.25, "max_concurrent": 2, "keep": 1, "keep_states": 2**30,
    "time_budget_seconds": 90.0, "address": "auto", "name": "night", "out": Path("/runs"), "tracking_uri": "sqlite:///x",
    "resume": True, "sampler": "qmc", "pruner": "median", "rungs": "all", "cpu_hours": 2.0, "gpu_hours": 1.5, "max_cost": 3.0,
    "price_per_hour": 0.5, "max_failed": 0.5, "until_gain": 0.2, "priority": 2, "weight": 0.5, "wait": True, "until": datetime(2100, 1, 1, tzinfo=UTC),
    "notify": "http://localhost/x", "replicates": 3, "folds": 4, "confirm": 2, "learn_from": ("dusk", "dawn"), "prefer": "smaller",
    "workers_per_trial": 2, "cuda_graphs": "on", "lanes": 4, "objective": ("val_accuracy", "latency"),
}  # fmt: skip


def parsed(*words: str) -> Options:
    return arguments.options(run_parser().parse_args(["lenet_space", *words]))


def test_the_command_line_of_options_gives_them_again() -> None:
    asked = Options.parse(EVERY)
    again = parsed(*command_line(asked.data), *command_line(asked))
    assert again.model_dump(exclude={"data"}) == asked.model_dump(exclude={"data"})
    assert again.data == asked.data.model_copy(update={"limit_seed": 4})
    declared = {Options.model_fields[name].alias or name for name in flags(Options)}
    assert declared < set(EVERY), "every option is in this test"


def test_what_is_not_given_is_taken_from_the_record() -> None:
    recorded = spec(settings={"recipe.lr": 0.1}, keep=None, max_concurrent=3)
    completed = Options(trials=9, keep=None).completed_by(recorded)
    assert (completed.trials, completed.max_epochs, completed.seed) == (9, 3, 7)
    assert (completed.settings, completed.keep, completed.max_concurrent) == ({"recipe.lr": 0.1}, None, 3)


def test_the_same_trials_are_asked_for_without_the_place_they_ran_in() -> None:
    words = same_trials(spec(settings={"recipe.lr": 0.1}, which_baselines="none", runner="inline"))
    assert words == [
        "--trials", "4", "--epochs", "3", "--baselines", "none", "--seed", "7", "--set", "recipe.lr=0.1",
        "--sampler", "tpe", "--pruner", "halving", "--rungs", "all",
    ]  # fmt: skip


def test_an_unknown_option_of_the_call_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"trails: no such option; did you mean 'trials'\?"):
        Options.parse({"trails": 3})


def test_an_option_takes_one_field(capsys: pytest.CaptureFixture[str]) -> None:
    class More(RecordedOptions):
        max_failures: Annotated[int, Field(ge=1), Flag("stop after N failed trials", "N")] = 3

    parser = run_parser()
    add_flags(parser, More, ["max_failures"])
    parser.print_help()
    assert "--max-failures N stop after N failed trials (default 3)" in " ".join(capsys.readouterr().out.split())
    assert parser.parse_args(["lenet_space", "--max-failures", "2"]).max_failures == 2
    assert command_line(More(max_failures=2)) == ["--max-failures", "2"]
    with pytest.raises(ValueError, match="max_failures") as raised:
        More(max_failures=0)
    assert explain(raised.value, More) == ["--max-failures 0: must be at least 1"]  # type: ignore[arg-type]


def test_help_prints_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """A percent sign in a help text is one for argparse too."""
    with pytest.raises(SystemExit):
        run_parser().parse_args(["--help"])
    assert "as 50%" in " ".join(capsys.readouterr().out.split())
