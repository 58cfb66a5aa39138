import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fer_data import DataOptions
from sweeps import Baseline, InputError, SweepResult
from sweeps.driver.runner import InlineRunner
from tests.sweeps.fake_trials import (
    PATIENT,
    SPACE,
    config,
    diverging_body,
    ended,
    only_sampled,
    open_desk,
    outcome,
    scripted_body,
    spec,
    take_all,
    verdict_stands,
)
from tracking.record.events import AttemptStarted, Event
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal

pytestmark = pytest.mark.timeout(120)

Sweep = Callable[..., SweepResult]


def test_unfinished_trials_come_first_under_their_numbers(tmp_path: Path) -> None:
    asked = spec(trials=4)
    desk = open_desk(tmp_path / "night", only_sampled(), asked)
    tasks = [desk.director.next_task() for _ in range(3)]
    assert tasks[1] is not None
    take_all(desk, tasks[1], [0.5, 0.6, 0.7])
    desk.director.take(1, ended(tasks[1]))
    again = open_desk(tmp_path / "night", only_sampled(), asked)
    resumed = [again.director.next_task() for _ in range(3)]
    assert again.director.next_task() is None
    assert [task and task.trial for task in resumed] == [0, 2, 3]
    assert [task and task.attempt for task in resumed] == [1, 1, 0]
    assert resumed[0] is not None
    assert tasks[0] is not None
    assert resumed[0] == tasks[0].model_copy(update={"attempt": 1})
    third = open_desk(tmp_path / "night", only_sampled(), asked)
    task = third.task()
    assert (task.trial, task.attempt) == (0, 2)
    assert [event.reason for event in third.events() if isinstance(event, AttemptStarted)] == ["resumed"] * 3


def test_the_pruners_word_that_was_owed_is_given_on_resume(tmp_path: Path) -> None:
    """The driver dies after the journal has the epoch, before it has the verdict."""
    asked = spec(trials=2)
    desk = open_desk(tmp_path / "night", only_sampled(), asked)
    InlineRunner().run(desk.director, scripted_body({0: [0.6, 0.6, 0.6], 1: [0.5, 0.5, 0.5]}))
    lines = desk.folder.journal.read_text().splitlines(keepends=True)
    (at,) = [index for index, line in enumerate(lines) if '"event":"verdict"' in line]
    desk.folder.journal.write_text("".join(lines[:at]))
    desk.folder.trial(1).verdict.unlink()
    again = open_desk(tmp_path / "night", only_sampled(), asked)
    task = again.task()
    assert verdict_stands(task)
    again.director.take(1, ended(task))
    trial = SweepHistory.load(again.folder.journal).trials[1]
    assert (trial.state, trial.last_epoch) == ("pruned", 1)


def test_a_trial_taken_up_again_has_its_configuration_in_its_folder(tmp_path: Path) -> None:
    """The driver dies between the journal's line and the file."""
    desk = open_desk(tmp_path / "night")
    desk.director.next_task()
    desk.folder.trial(0).config.unlink()
    task = open_desk(tmp_path / "night").director.next_task()
    assert task is not None
    assert json.loads(desk.folder.trial(0).config.read_text()) == task.config.model_dump(mode="json")


class Killed(BaseException):
    """Stands for kill -9: no handler of ours may stop it."""


def die_at_line(monkeypatch: pytest.MonkeyPatch, line: int, *, written: bool) -> pytest.MonkeyPatch:
    """Let the driver die when it appends its n-th line: before a byte of it is there, or when it is on disk."""
    append, calls = Journal.append, count(1)

    def dying(journal: Journal, *events: Event) -> None:
        call = next(calls)
        if call < line or (call == line and written):
            append(journal, *events)
        if call >= line:
            raise Killed

    monkeypatch.setattr(Journal, "append", dying)
    return monkeypatch


@pytest.mark.parametrize("written", [True, False], ids=["after", "before"])
def test_a_driver_killed_at_any_line_loses_nothing(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    monkeypatch.setenv("PATH", "")  # git, asked for the commit by every driver, is most of their time
    asked: dict[str, Any] = {"space": PATIENT, "trials": 6, "epochs": 3, "seed": 6, "body": diverging_body}
    whole = sweep(name="whole", **asked)
    expected = outcome(whole.folder.journal)
    assert {trial["state"] for trial in expected.values()} == {"done", "pruned", "failed"}
    lines = len(whole.folder.journal.read_text().splitlines())
    for line in range(1, lines + 1):
        name = f"killed-{line}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            die_at_line(patch, line, written=written)
            sweep(name=name, **asked)
        resumed = sweep(name=name, resume=True, **asked)
        assert outcome(resumed.folder.journal) == expected, f"killed at line {line}"
        assert resumed.exit_code == 0
        assert resumed.history.finished is not None


def test_baselines_that_a_space_has_gained_take_no_sampled_trials_number(sweep: Sweep) -> None:
    gained = [Baseline(f"report {number}", config(0.1 * number)) for number in (3, 4, 5)]
    larger = replace(SPACE, baselines=[*SPACE.baselines, *gained])
    sweep(trials=3)
    history = sweep(space=larger, trials=5, resume=True).history
    names = [trial.started.baseline for trial in history.trials.values()]
    assert names == ["first report", "second report", None, None, None]
    sweep(trials=2, name="baselines-alone")
    history = sweep(space=larger, trials=4, resume=True, name="baselines-alone").history
    assert [trial.started.baseline for trial in history.trials.values()][2:] == ["report 3", "report 4"]


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("none", [None, None, None]),
        ("first", ["first report", None, None]),
        ("all", ["first report", "second report", None]),
    ],
)
def test_a_sweep_runs_the_baselines_it_was_asked_for_also_when_it_is_extended(
    sweep: Sweep, which: str, names: list[str | None]
) -> None:
    sweep(trials=1, baselines=which)
    extended = sweep(trials=3, resume=True)
    assert [trial.started.baseline for trial in extended.history.trials.values()] == names
    with pytest.raises(InputError, match="--baselines"):
        sweep(trials=4, resume=True, baselines="all" if which != "all" else "none")


def test_a_sweep_on_ferplus_labels_under_their_old_name_goes_on(sweep: Sweep, tiny_csv: Path, tmp_path: Path) -> None:
    votes = tmp_path / "votes.csv"
    usages = [line.rsplit(",", 1)[1] for line in tiny_csv.read_text().splitlines()[1:]]
    names = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    # The plurality is four votes for sadness; there is no majority.
    votes.write_text(f"Usage,Image name,{names}\n" + "".join(f"{usage},,3,0,0,4,3,0,0,0,0,0\n" for usage in usages))
    data = DataOptions(source=str(tiny_csv), ferplus=str(votes), labels="ferplus-plurality")
    begun = sweep(data=data, trials=1)
    begun.folder.journal.write_text(begun.folder.journal.read_text().replace('"ferplus-plurality"', '"ferplus"'))
    resumed = sweep(data=None, trials=2, resume=True)
    assert [trial.state for trial in resumed.history.trials.values()] == ["done", "done"]


def test_a_sweep_of_an_earlier_version_goes_on_and_says_what_differs(sweep: Sweep) -> None:
    """Its journal, of format 1, does not say what the sampler was told."""
    asked: dict[str, Any] = {"space": PATIENT, "epochs": 3, "seed": 6, "body": diverging_body}
    expected = outcome(sweep(trials=10, name="whole", **asked).folder.journal)
    journal = sweep(trials=6, **asked).folder.journal
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[0]["format"] = 1
    newer = {"told"}, {"format", "space_sha256"}
    old = [{k: v for k, v in line.items() if k not in newer[line["event"] == "driver"]} for line in lines]
    journal.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in old))
    with pytest.warns(UserWarning, match="an earlier version started this sweep"):
        resumed = sweep(trials=10, resume=True, **asked)
    found = outcome(resumed.folder.journal)
    assert {number: found[number]["params"] for number in found} == {n: expected[n]["params"] for n in expected}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it has been said
        sweep(trials=11, resume=True, **asked)


def test_settings_of_python_come_back_from_the_journal_as_they_were(sweep: Sweep) -> None:
    settings = {"recipe.lr_policy": "multistep", "recipe.gamma": 0.5, "recipe.step_iterations": (10, 20),
                "recipe.schedule": "exact"}  # fmt: skip
    assert sweep(trials=1, settings=settings).exit_code == 0
    assert sweep(trials=2, settings=settings, resume=True).exit_code == 0
    assert len(sweep(trials=3, resume=True)) == 3


def test_a_torn_last_line_is_cut_off(sweep: Sweep) -> None:
    asked: dict[str, Any] = {"trials": 3, "epochs": 2}
    whole = sweep(**asked)
    expected, journal = outcome(whole.folder.journal), whole.folder.journal
    content = journal.read_bytes()
    for cut in (10, len(content) // 2, len(content) // 3):
        journal.write_bytes(content[:-cut])
        assert outcome(sweep(resume=True, **asked).folder.journal) == expected
