"""A sweep that is resumed after its space's file was edited."""

import json
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.main import main
from sweeps.search.study import Study
from sweeps.spaces.find import find_space
from tests.sweeps.fake_trials import refused
from tracking.record.events import DriverStarted
from tracking.record.history import SweepHistory
from tracking.record.journal import read

Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]

FILE = """
from fer_models import AlexNetConfig, LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig

def suggest(trial):
    lr = {lr}
    {more}
    recipe = Recipe(lr=lr, batch_size=8, optimizer={optimizer}, weight_decay={weight_decay})
    return TrialConfig(net={net}(), recipe=recipe)

def baseline(name, lr):
    return Baseline(name, TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=8)), f"{{lr}} in the report")

SPACE = Space(suggest=suggest, max_epochs=3, trials=8, sampler="{sampler}", pruner="{pruner}", first_rung_epochs={rung},
              baselines=[{baselines}])
"""
OF_ITS_START = {
    "lr": "trial.suggest_float('lr', 0.001, 0.1, log=True)",
    "optimizer": "trial.suggest_categorical('optimizer', ['sgd', 'nesterov'])",
    "weight_decay": "trial.suggest_categorical('weight_decay', [0.0005])",
    "more": "pass",
    "net": "LeNetConfig",
    "sampler": "tpe",
    "pruner": "none",
    "rung": 1,
    "baselines": "",
}


@pytest.fixture
def write(space: str, tmp_path: Path) -> Callable[..., None]:
    def to_file(**parts: Any) -> None:
        (tmp_path / space).write_text(FILE.format(**OF_ITS_START | parts))

    return to_file


@pytest.fixture
def edited(run: Run, write: Callable[..., None], out: Path, capsys: Capture) -> Callable[..., tuple[str, SweepHistory]]:
    """Runs eight trials, edits the space, runs four more; what is said of the edit, and the history."""

    def edit(before: dict[str, Any] | None = None, *more: str, **parts: Any) -> tuple[str, SweepHistory]:
        write(**before or {})
        assert run(*more) == 0
        write(**(before or {}) | parts)
        capsys.readouterr()
        assert run("--resume", "--trials", "12") == 0
        said = capsys.readouterr().err
        return " ".join(said.split()), SweepHistory.load(out / "night" / "journal.jsonl")

    return edit


Edited = Callable[..., tuple[str, SweepHistory]]


def learned(out: Path) -> dict[int, dict[str, Any]]:
    """What the sampler of a resume would learn from: the parameters by trial."""
    study = Study(out / "study.log", find_space("my_space.py"), 0, read(out / "night" / "journal.jsonl"))
    return {trial.number: trial.params for trial in study._shown()}


def drawn(history: SweepHistory) -> list[dict[str, Any]]:
    return [trial.started.params for _, trial in sorted(history.trials.items())]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsgaii"])
def test_a_widened_range_and_a_new_choice_keep_all_trials(edited: Edited, out: Path, sampler: str) -> None:
    said, history = edited(
        {"sampler": sampler},
        lr="trial.suggest_float('lr', 0.0001, 0.5, log=True)",
        optimizer="trial.suggest_categorical('optimizer', ['sgd', 'nesterov', 'adam'])",
    )
    for part in (
        "my_space was edited since this sweep last ran",
        "lr: a number from 0.0001 to 0.5 on a log scale; before, a number from 0.001 to 0.1 on a log scale",
        "optimizer: one of sgd, nesterov, adam; before, one of sgd, nesterov",
        "the sampler learns from 8 of 8 trials that were drawn before",
    ):
        assert part in said
    assert history.count("done") == 12
    assert learned(out) == dict(enumerate(drawn(history)))


@pytest.mark.parametrize("sampler", ["tpe", "qmc-tpe", "gp"])
def test_lessons_of_another_sweep_are_drawn_from_the_edited_space(
    run: Run, write: Any, out: Path, capsys: Capture, sampler: str
) -> None:
    write(sampler=sampler)
    assert run("--name", "dusk", "--trials", "30") == 0
    assert run("--from", "dusk", "--trials", "2") == 0
    write(
        sampler=sampler,
        lr="trial.suggest_float('lr', 0.01, 0.5, log=True)",
        optimizer="trial.suggest_categorical('optimizer', ['sgd', 'nesterov', 'adam'])",
    )
    capsys.readouterr()
    assert run("--resume", "--trials", "6") == 0
    said = " ".join(capsys.readouterr().err.split())
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    assert history.count("done") == 6
    lessons = history.started.lessons
    inside = [lesson.params for lesson in lessons if lesson.params["lr"] >= 0.01]
    assert 0 < len(inside) < len(lessons)
    assert f"the sampler learns from {len(inside)} of {len(lessons)} trials of other sweeps" in said
    assert [params for number, params in sorted(learned(out).items()) if number < 0] == inside


def test_trials_are_spread_evenly_until_the_sampler_knows_thirty_that_still_fit(
    run: Run, write: Any, out: Path
) -> None:
    """30 trials of another sweep are enough for TPE to draw; after an edit that none of them fits it knows nothing."""
    write(sampler="qmc-tpe")
    assert run("--name", "dusk", "--trials", "30") == 0
    assert run("--from", "dusk", "--trials", "1") == 0
    write(sampler="qmc-tpe", lr="trial.suggest_float('lr', 0.2, 0.5, log=True)")
    assert run("--resume", "--trials", "16") == 0
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    shares = sorted(
        log(trial.started.params["lr"] / 0.2) / log(0.5 / 0.2) for trial in list(history.trials.values())[8:]
    )
    assert [int(8 * share) for share in shares] == list(range(8)), "each eighth of the range has one of eight trials"


def test_offers_of_another_sweep_keep_the_values_that_the_edited_space_has(run: Run, write: Any, out: Path) -> None:
    write()
    assert run("--name", "dusk", "--trials", "8") == 0
    assert run("--from", "auto", "--trials", "1") == 0
    offer = SweepHistory.load(out / "night" / "journal.jsonl").started.offers[1].params
    others = [choice for choice in ("sgd", "nesterov", "adam") if choice != offer["optimizer"]]
    write(optimizer=f"trial.suggest_categorical('optimizer', {others})")
    assert run("--resume", "--trials", "2") == 0
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    assert history.count("done") == 2
    assert history.trials[1].started.params["lr"] == offer["lr"]


@pytest.mark.parametrize(
    ("number", "is_refused_now", "teaches"), [(0, True, False), (3, True, True), (3, False, False)]
)
def test_a_refused_draw_does_not_keep_the_parameters_of_before(
    run: Run, write: Any, out: Path, capsys: Capture, number: int, is_refused_now: bool, teaches: bool
) -> None:
    write()
    assert run("--name", "before") == 0
    lr = drawn(SweepHistory.load(out / "before" / "journal.jsonl"))[number]["lr"]
    refuses = f"1 / 0 if lr == {lr} else 0.0005"
    write(weight_decay=refuses)
    run()
    three = "trial.suggest_categorical('optimizer', ['sgd', 'nesterov', 'adam'])"
    write(weight_decay=refuses if is_refused_now else "0.0005", optimizer=three)
    capsys.readouterr()
    run("--resume", "--trials", "12")
    assert "the sampler learns from 7 of 7 trials that were drawn before" in " ".join(capsys.readouterr().err.split())
    run("--resume", "--trials", "14")
    assert "was edited" not in capsys.readouterr().err
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    assert (history.count("done"), history.count("failed")) == (13, 1)
    assert history.trials[number].started.title == "refused draw"
    # The first draw teaches nothing, as it is not known then which parameters a whole one has.
    assert sorted(learned(out)) == [trial for trial in range(14) if trial != number or teaches]


@pytest.mark.parametrize("lowest", [0.0001, 0.05])
def test_a_trial_asked_for_before_an_edit_is_drawn_from_the_edited_space(
    run: Run, write: Any, out: Path, lowest: float
) -> None:
    write()
    assert run() == 0
    assert main(["try", "night", "lr=0.02", "--out", str(out)]) == 0
    write(
        lr=f"trial.suggest_float('lr', {lowest}, 0.5, log=True)",
        optimizer="trial.suggest_categorical('optimizer', ['sgd', 'nesterov', 'adam'])",
    )
    assert run("--resume", "--trials", "12") == 0
    assert run("--resume", "--trials", "14") == 0
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    assert history.count("done") == 14
    tried = history.trials[8].started
    assert tried.config["recipe"]["lr"] == 0.02
    assert tried.params.get("lr") == (0.02 if lowest < 0.02 else None), "else the space cannot draw it"
    assert (8 in learned(out)) == (lowest < 0.02)


def test_where_nothing_was_drawn_no_parameter_is_new(run: Run, write: Any, capsys: Capture) -> None:
    write(baselines="baseline('A', 0.01)")
    assert run("--trials", "1") == 0
    write(baselines="baseline('A', 0.01)", lr="trial.suggest_float('lr', 0.0001, 0.5, log=True)")
    capsys.readouterr()
    assert run("--resume", "--trials", "2") == 0
    said = capsys.readouterr().err
    assert "my_space was edited" in said
    assert "drawn now" not in said
    assert "sampler learns" not in said


def test_a_space_that_uses_the_number_of_the_trial_is_not_edited(edited: Edited, out: Path) -> None:
    said, history = edited({"lr": "0.02 if trial.number == 3 else trial.suggest_float('lr', 0.001, 0.1, log=True)"})
    assert "was edited" not in said
    assert not history.redrawn
    assert learned(out) == dict(enumerate(drawn(history)))


def test_a_constant_parameter_may_go(edited: Edited, out: Path) -> None:
    said, _ = edited(weight_decay="0.0005")
    assert "weight_decay: no longer drawn" in said
    assert "learns from 8 of 8" in said
    assert all("weight_decay" not in params for params in learned(out).values())


def test_a_setting_that_becomes_a_parameter_is_known_of_the_trials_before(edited: Edited, out: Path) -> None:
    said, _ = edited({"lr": "0.01"}, lr="trial.suggest_float('lr', 0.001, 0.1, log=True)")
    assert "lr: drawn now, a number from 0.001 to 0.1 on a log scale" in said
    taught = learned(out)
    assert [taught[number]["lr"] for number in range(8)] == [0.01] * 8
    assert len({taught[number]["lr"] for number in range(8, 12)}) > 1


def test_trials_outside_the_new_ranges_teach_nothing_and_stay(edited: Edited, out: Path) -> None:
    said, history = edited(lr="trial.suggest_float('lr', 0.01, 0.1, log=True)")
    outside = [number for number, params in enumerate(drawn(history)[:8]) if params["lr"] < 0.01]
    assert 0 < len(outside) < 8
    assert f"the sampler learns from {8 - len(outside)} of 8 trials that were drawn before; not from trial" in said
    assert f"{outside[0]} (lr {drawn(history)[outside[0]]['lr']:.4g}: the space has a number from 0.01 to 0.1" in said
    assert sorted(learned(out)) == [number for number in range(12) if number not in outside]
    assert history.count("done") == 12


def test_another_kind_of_parameter_or_net_teaches_nothing_and_is_no_fault(edited: Edited, out: Path) -> None:
    said, history = edited(lr="trial.suggest_categorical('lr', [0.01, 0.02])", net="AlexNetConfig")
    assert "learns from 0 of 8" in said
    assert sorted(learned(out)) == [8, 9, 10, 11]
    assert {trial.started.config["net"]["name"] for trial in history.trials.values()} == {"lenet", "alexnet"}


def test_a_constant_that_changed_is_said(edited: Edited) -> None:
    said, _ = edited({"weight_decay": "0.0005"}, weight_decay="0.001")
    assert "recipe.weight_decay 0.0005, now 0.001: trials 0, 1, 2, 3 and 4 more have the old value" in said


def test_what_was_recorded_of_an_edit_holds_for_later_resumes(edited: Edited, run: Run, out: Path, write: Any,
                                                              capsys: Capture) -> None:  # fmt: skip
    narrow = {"lr": "trial.suggest_float('lr', 0.01, 0.1, log=True)"}
    edited(**narrow)
    before = learned(out)
    capsys.readouterr()
    assert run("--resume", "--trials", "14") == 0
    assert capsys.readouterr().err == "", "it has been said"
    journal = out / "night" / "journal.jsonl"
    edits = [event.redrawn is not None for event in read(journal) if isinstance(event, DriverStarted)]
    assert edits == [False, True, False]
    assert {number: params for number, params in learned(out).items() if number < 12} == before
    write()  # as it was at first: all teach again
    assert run("--resume", "--trials", "15") == 0
    assert "learns from 14 of 14" in " ".join(capsys.readouterr().err.split())
    assert sorted(learned(out)) == list(range(15))


def test_an_edit_in_two_runs_proposes_what_it_does_in_one(edited: Edited, run: Run, out: Path) -> None:
    _, whole = edited(lr="trial.suggest_float('lr', 0.01, 0.1, log=True)")
    journal = out / "night" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    (cut,) = [
        place for place, line in enumerate(lines) if json.loads(line)["event"] == "trial" and '"trial":10,' in line
    ]
    journal.write_text("".join(lines[:cut]))
    assert run("--resume", "--trials", "12") == 0
    assert drawn(SweepHistory.load(journal)) == drawn(whole)


def test_the_rungs_and_the_methods_stay_those_of_the_start(edited: Edited) -> None:
    """With other rungs the pauses of the journal would be at none."""
    said, history = edited({"pruner": "promoting"}, rung=2, sampler="gp")
    assert "kept from the sweep's start: sampler tpe (the file has gp), first_rung_epochs 1 (the file has 2)" in said
    assert {trial.last_epoch for trial in history.trials.values() if trial.state == "pruned"} == {1}


def test_an_edited_grid_trains_the_points_that_no_trial_has(edited: Edited, out: Path) -> None:
    grid = {"sampler": "grid", "lr": "trial.suggest_categorical('lr', [0.01, 0.02, 0.03, 0.04])"}
    _, history = edited(grid, lr="trial.suggest_categorical('lr', [0.01, 0.02, 0.03, 0.04, 0.05, 0.06])")
    points = {(params["lr"], params["optimizer"]) for params in drawn(history)}
    assert len(points) == 12


def test_a_space_that_cannot_be_read_changes_nothing(run: Run, write: Any, capsys: Capture, out: Path) -> None:
    write()
    run()
    write(lr="trial.suggest_float('lr', 0.1, 0.001, log=True)")
    before = (out / "night" / "journal.jsonl").read_bytes()
    assert "my_space" in refused(capsys, lambda: run("--resume", "--trials", "12"))
    assert (out / "night" / "journal.jsonl").read_bytes() == before


THREE = {"baselines": "baseline('A', 0.01), baseline('B', 0.02), baseline('C', 0.03)"}


def baselines(history: SweepHistory) -> dict[str | None, float]:
    """The learning rate that each baseline was trained with."""
    own = [trial.started for trial in history.trials.values() if trial.started.baseline]
    return {started.baseline: started.config["recipe"]["lr"] for started in own}


def test_baselines_that_were_trained_stay_and_new_ones_are_named(edited: Edited, out: Path) -> None:
    """B has other settings now, A and C are gone, D is new."""
    said, history = edited(THREE, baselines="baseline('D', 0.04), baseline('B', 0.05)")
    for part in (
        "baseline A: no longer in the file; trial 0 stays",
        "baseline B: recipe.lr 0.02, now 0.05: trial 1 stays as it was trained",
        "baseline C: no longer in the file; trial 2 stays",
        "baseline D: new, and not trained, since trials were drawn already; "
        "--resume --baselines all trains it, within --trials",
    ):
        assert part in said
    assert baselines(history) == {"A": 0.01, "B": 0.02, "C": 0.03}
    reported = {"A": "0.01 in the report", "B": "0.02 in the report", "C": "0.03 in the report"}
    assert history.spec["baselines"] == reported, "that of the settings that were trained"
    assert history.count("done") == 12


def test_a_new_baseline_is_trained_where_it_is_asked_for(run: Run, write: Any, out: Path, capsys: Capture) -> None:
    write(**THREE)
    assert run() == 0
    write(baselines=f"baseline('D', 0.04), {THREE['baselines']}")
    assert run("--resume", "--trials", "10", "--baselines", "all") == 0
    assert "baseline D: new, and trained next" in " ".join(capsys.readouterr().err.split())
    history = SweepHistory.load(out / "night" / "journal.jsonl")
    assert [number for number, trial in history.trials.items() if trial.started.baseline] == [0, 1, 2, 8]
    assert baselines(history)["D"] == 0.04


def test_a_baseline_that_waits_is_trained_though_one_before_it_is_gone(
    run: Run, write: Any, out: Path, capsys: Capture
) -> None:
    write(**THREE)
    assert run("--trials", "4") == 0
    journal = out / "night" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    (cut,) = [place for place, line in enumerate(lines) if '"baseline":"C"' in line and '"event":"trial"' in line]
    journal.write_text("".join(lines[:cut]))  # killed before C
    write(baselines="baseline('B', 0.02), baseline('C', 0.06)")
    assert run("--resume") == 0
    assert "baseline A: no longer in the file; trial 0 stays" in " ".join(capsys.readouterr().err.split())
    assert baselines(SweepHistory.load(journal)) == {"A": 0.01, "B": 0.02, "C": 0.06}


def test_two_baselines_of_one_name_are_refused(run: Run, write: Any, capsys: Capture) -> None:
    write(baselines="baseline('A', 0.01), baseline('A', 0.02)")
    assert "baselines: 2 are named 'A'" in refused(capsys, run)
