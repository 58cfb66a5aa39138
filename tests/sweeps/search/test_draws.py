"""What `suggest` may ask for, and what becomes of a draw that it cannot make."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from fer_models import CompactResNetConfig, Recipe
from sweeps import InputError, Space, SweepResult, TrialConfig
from sweeps.cli.main import main
from sweeps.driver.runner import InlineRunner
from sweeps.search.proposals import random_trials
from sweeps.search.study import Study
from tests.sweeps.fake_trials import config, good_body, only_sampled, open_desk, refused, spec
from tracking.record.history import SweepHistory

Capture = pytest.CaptureFixture[str]


class Odd(BaseException):
    """An exception that is no Exception."""


def faulty(*numbers: int, fault: BaseException) -> Callable[[optuna.Trial], TrialConfig]:
    """A `suggest` that cannot make the draws of some trials, which it has drawn a value of by then."""

    def suggest(trial: optuna.Trial) -> TrialConfig:
        lr = trial.suggest_float("lr", 0.001, 0.1, log=True)
        if trial.number in numbers:
            raise fault
        return config(lr=lr, batch_size=trial.suggest_int("batch_size", 1, 4))

    return suggest


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ValueError("kernel larger than the map"), "ValueError: kernel larger than the map"),
        (SystemExit("no such net"), "SystemExit: no such net"),
        (optuna.TrialPruned(), "TrialPruned: "),
        (Odd("odd"), "Odd: odd"),
        (InputError("batch_size 3: must be even"), "batch_size 3: must be even"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_draw_that_cannot_be_made_is_one_failed_trial(tmp_path: Path, fault: BaseException, said: str) -> None:
    space = only_sampled(draw=faulty(2, fault=fault))
    desk = open_desk(tmp_path / "night", space, spec(trials=6))
    InlineRunner().run(desk.director, good_body)
    trials = desk.director.history.trials
    assert [number for number, trial in trials.items() if trial.state == "failed"] == [2]
    assert len(trials) == 6
    started, end = trials[2].started, trials[2].end
    assert end is not None
    assert end.reason == f"space fake_space: suggest: {said}"
    assert (started.config, set(started.params), end.epochs, end.final) == ({}, {"lr"}, 0, True)
    assert desk.director.faults == [f"trial 2: {end.reason}"]


def test_a_kill_before_its_end_is_recorded_leaves_a_sweep_that_resumes(tmp_path: Path) -> None:
    space, asked = only_sampled(draw=faulty(2, fault=ValueError("no such net"))), spec(trials=6)
    desk = open_desk(tmp_path / "night", space, asked)
    InlineRunner().run(desk.director, good_body)
    desk.journal.close()
    lines = desk.folder.journal.read_text().splitlines(keepends=True)
    (start,) = [place for place, line in enumerate(lines) if '"event":"trial","trial":2' in line]
    desk.folder.journal.write_text("".join(lines[: start + 1]))
    again = open_desk(tmp_path / "night", space, asked)
    InlineRunner().run(again.director, good_body)
    trials = again.director.history.trials
    assert [number for number, trial in trials.items() if trial.state == "failed"] == [2]
    assert len(trials) == 6
    assert "could not make its configuration" in trials[2].reason


def test_a_resume_does_not_draw_it_again(tmp_path: Path) -> None:
    """Nor is it drawn by chance: another number is another draw."""
    asked: list[float] = []

    def suggest(trial: optuna.Trial) -> TrialConfig:
        asked.append(lr := trial.suggest_float("lr", 0.001, 0.1, log=True))
        if len(asked) == 3:
            raise ValueError("no such net")
        return config(lr=lr)

    space = only_sampled(draw=suggest)
    first = open_desk(tmp_path / "night", space, spec(trials=4))
    for _ in range(3):
        assert first.director.next_task() is not None
    again = open_desk(tmp_path / "night", space, spec(trials=4))
    InlineRunner().run(again.director, good_body)
    assert [trial.state for trial in again.director.history.trials.values()].count("failed") == 1
    assert len(set(asked)) == len(asked) == 4
    expected = open_desk(tmp_path / "other", only_sampled(draw=lambda trial: config(trial.suggest_float("lr", 0.001, 0.1, log=True))), spec(trials=4))  # fmt: skip
    InlineRunner().run(expected.director, good_body)
    proposed = [trial.started.params for trial in expected.director.history.trials.values()]
    assert [trial.started.params for trial in again.director.history.trials.values()] == proposed


def test_a_region_that_suggest_refuses_is_left(tmp_path: Path) -> None:
    def suggest(trial: optuna.Trial) -> TrialConfig:
        lr, batch_size = trial.suggest_float("lr", 1e-4, 1, log=True), trial.suggest_int("batch_size", 1, 64)
        if lr > 0.06:
            raise ValueError("too high")
        return config(lr, batch_size)

    later = []
    for seed in range(6):
        study = Study(tmp_path / "study.log", only_sampled(first_rung_epochs=9, draw=suggest), seed)
        for number in range(50):
            proposal = study.propose(number)
            if proposal.config:
                value = 0.5 - 0.1 * abs(np.log10(proposal.config.recipe.lr) + 2)
                study.finish(number, "value", float(value))
            else:
                study.finish(number, study.lesson(number, "failed", unfit=True))
            later += [proposal.config is None] if number >= 30 else []
    assert np.mean(later) <= 0.1


def test_a_broken_off_draw_does_not_split_the_joint_model(tmp_path: Path) -> None:
    def proposals(space: Space) -> list[dict[str, Any]]:
        study, made = Study(tmp_path / "study.log", space, 7), []
        for number in range(25):
            proposal = study.propose(number)
            if proposal.config:
                made.append(proposal.params)
                study.finish(number, "value", number * 7 % 25 / 25)
            else:
                study.finish(number, study.lesson(number, "failed", unfit=True))
        return made

    broken = proposals(only_sampled(draw=faulty(24, fault=ValueError("no such net"))))
    assert broken == proposals(only_sampled(draw=faulty(fault=ValueError())))[:24]


SPACE_FILE = """
from fer_models import LeNetConfig, Recipe
from sweeps import Space, TrialConfig

def suggest(trial):
    lr = trial.suggest_float("lr", 0.001, 0.1, log=True)
    {body}
    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=8))

SPACE = Space(suggest=suggest, max_epochs=1, trials=6)
"""


@pytest.fixture
def write_space(tmp_path: Path, space: str) -> Callable[[str], None]:
    """Have the space that `run` runs do something between drawing a rate and making the configuration."""

    def write(body: str) -> None:
        (tmp_path / space).write_text(SPACE_FILE.format(body=body))

    return write


def test_a_sweep_goes_on_after_such_a_draw_and_says_so(
    run: Callable[..., int], write_space: Callable[[str], None], out: Path, capsys: Capture
) -> None:
    write_space("pass")
    assert run("--name", "before") == 0
    third = SweepHistory.load(out / "before" / "journal.jsonl").trials[3].started.params["lr"]
    write_space(f"if lr == {third}: raise ValueError('no such net')")
    capsys.readouterr()
    assert run() == 1, "a fault, though not one that ends the sweep"
    captured = capsys.readouterr()
    assert "trial 3 refused draw: failed: space my_space: suggest: ValueError: no such net" in captured.out
    assert "6 of 6 trials" in captured.out
    assert "1 failed" in captured.out
    lines = [json.loads(line) for line in (out / "night" / "journal.jsonl").read_text().splitlines()]
    (started,) = [line for line in lines if line["event"] == "trial" and line["trial"] == 3]
    assert main(["status", "night", "--out", str(out)]) == 0
    assert f"lr {started['params']['lr']:.3g}" in capsys.readouterr().out
    assert main(["report", "night", "--out", str(out)]) == 0


def test_tuples_and_numpys_numbers_are_choices_and_bounds(sweep: Callable[..., SweepResult]) -> None:
    """Past the ten random trials, and over a resume."""
    widths = [(16, 32, 64, 128), (24, 48, 96, 192)]

    def suggest(trial: optuna.Trial) -> TrialConfig:
        drawn = trial.suggest_categorical("widths", widths)  # type: ignore[arg-type]
        size = trial.suggest_categorical("batch_size", np.array([8, 16]))  # type: ignore[arg-type]
        assert drawn in widths
        assert isinstance(size, np.integer)
        lr = trial.suggest_float("lr", np.float32(0.01), np.float32(0.1))  # type: ignore[arg-type]
        momentum = trial.suggest_int("momentum", np.int64(1), np.int64(9)) / 10  # type: ignore[arg-type]
        recipe = Recipe(lr=lr, batch_size=int(size), momentum=momentum)
        return TrialConfig(net=CompactResNetConfig(widths=drawn), recipe=recipe)

    space = only_sampled(draw=suggest)
    sweep(space=space, trials=12, epochs=1)
    history = sweep(space=space, trials=14, epochs=1, resume=True).history
    assert {trial.state for trial in history.trials.values()} <= {"done", "pruned"}
    starts = [trial.started for trial in history.trials.values()]
    assert {start.params["widths"] for start in starts} == {str(one) for one in widths}
    assert all(start.params["widths"] == str(tuple(start.config["net"]["widths"])) for start in starts)


def noting(trial: optuna.Trial) -> TrialConfig:
    """Uses all that it may use of its trial."""
    trial.set_user_attr("why", trial.number)
    choice = trial.suggest_categorical("widths", [(8, 16), (16, 32)])  # type: ignore[arg-type]
    lr = trial.suggest_float("lr", 0.02, 0.04, step=0.01)
    assert trial.params == {"widths": str(choice), "lr": lr}
    assert list(trial.distributions) == ["widths", "lr"]
    return config(lr, choice[0], momentum=0.9 - trial.user_attrs["why"] / 100)


def test_a_note_on_the_trial_does_not_count_as_an_edit(sweep: Callable[..., SweepResult]) -> None:
    space = Space(suggest=noting, name="noting", sampler="tpe", pruner="none")
    whole = sweep(space=space, trials=20, epochs=1, name="whole")
    sweep(space=space, trials=14, epochs=1)
    resumed = sweep(space=space, trials=20, epochs=1, resume=True)
    assert [driver.redrawn for driver in resumed.history.drivers] == [None, None]
    assert [trial.started.params for trial in resumed] == [trial.started.params for trial in whole]


def test_other_sweeps_and_grids_draw_from_a_space_that_makes_notes(sweep: Callable[..., SweepResult]) -> None:
    space = Space(suggest=noting, name="noting", sampler="tpe", pruner="none")
    sweep(space=space, trials=3, epochs=1, name="dusk")
    assert len(sweep(space=space, trials=1, epochs=1, learn_from=["dusk"]).history.started.lessons) == 3
    grid = sweep(space=space, epochs=1, sampler="grid", name="grid")
    assert {(trial.started.params["widths"], trial.started.params["lr"]) for trial in grid} == {
        (widths, lr) for widths in ("(8, 16)", "(16, 32)") for lr in (0.02, 0.03, 0.04)
    }


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("trial.suggest_categorical('net', [LeNetConfig, Recipe])", "parameter 'net': a choice is a number, a text"),
        ("trial.suggest_categorical('net', [{'a': 1}])", "got {'a': 1}; use a name as the choice"),
        ("trial.study.study_name", "trial.study: suggest is called again for a resume, a grid or --from"),
        (
            "trial.suggest_loguniform('momentum', 0.1, 0.9)",
            "trial.suggest_loguniform: deprecated in Optuna; use suggest_float(name, low, high, log=True)",
        ),
        (
            "trial.suggest_discrete_uniform('momentum', 0.1, 0.9, 0.2)",
            "trial.suggest_discrete_uniform: deprecated in Optuna; use suggest_float(name, low, high, step=q)",
        ),
        ("trial.should_prune()", "its trial has only suggest_float, suggest_int, suggest_categorical, number"),
        ("trial.suggest_float('momentum', 0.9, 0.1)", "`low <= high` must hold, but got (low=0.9, high=0.1)"),
        (
            "trial.suggest_categorical('size', [64, 128] if lr > 0.01 else [16, 32])",
            "before; within a sweep a parameter keeps its kind, scale and choices: give a different one another name",
        ),
        (
            "trial.suggest_float('size', 1, 4) if lr > 0.01 else trial.suggest_int('size', 1, 4)",
            "a whole number from 1",
        ),
        ("return {'lr': lr}", "suggest must return a TrialConfig, got {'lr': 0."),
        ("raise SystemExit(3)", "suggest: SystemExit: 3"),
    ],
)
def test_a_space_that_asks_for_what_cannot_be_is_refused_before_anything_is_written(
    run: Callable[..., int], write_space: Callable[[str], None], out: Path, capsys: Capture, body: str, said: str
) -> None:
    write_space(body)
    assert said in refused(capsys, run)
    assert not out.exists()


def test_a_space_that_leaves_the_program_is_named(run: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "my_space.py").write_text("import sys\nsys.exit('I am a script')\n")
    assert refused(capsys, run) == "my_space.py: SystemExit: I am a script"


def test_a_range_that_was_edited_is_searched_as_it_is_now(
    run: Callable[..., int], write_space: Callable[[str], None], out: Path, capsys: Capture
) -> None:
    """And the edit is said, and in the journal."""
    write_space("trial.suggest_float('momentum', 0.1, 0.2)")
    run("--trials", "11")
    run("--trials", "12", "--resume")
    assert capsys.readouterr().err == ""
    write_space("trial.suggest_float('momentum', 0.3, 0.4)")
    assert run("--trials", "14", "--resume") == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: my_space was edited since this sweep last ran: its trials keep their settings")
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    assert all(history.trials[number].started.params["momentum"] >= 0.3 for number in (12, 13))
    hashes = [driver.space_sha256 for driver in history.drivers]
    assert hashes[0] == hashes[1] != hashes[2] == sha256(Path("my_space.py").read_bytes()).hexdigest()


def test_the_draws_that_are_looked_at_know_what_the_sweep_has_had() -> None:
    space = only_sampled(draw=faulty(fault=ValueError()))
    known = {"batch_size": optuna.distributions.FloatDistribution(1, 4)}
    with pytest.raises(InputError, match=r"'batch_size': a whole number from 1 to 4 now, a number from 1 to 4 before"):
        space.draw(next(random_trials(0, known)))
