"""Acts on a sweep: those that its driver reads from the inbox, and those done on a sweep that nobody drives."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_models import LeNetConfig, Recipe
from fer_models.training.tensor_file import read_tensors, write_tensors
from fer_models.training.weights import Snapshot
from sweeps import Baseline, Space, SweepResult, TrialConfig, run_sweep
from sweeps.cli.main import main
from sweeps.driver.acts import Acts
from sweeps.driver.runner import InlineRunner
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from sweeps.sharing.files import FileClaims, ledger_folder
from sweeps.spaces import zoo_space
from sweeps.sweep import run_plan
from sweeps.trial import run_trial
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests import ROOT
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import (
    Desk,
    config,
    ended,
    good_body,
    only_sampled,
    open_desk,
    refused,
    report,
    spec,
    suggest,
)
from tracking.errors import TrackingError
from tracking.record.events import Act, TrialDrawn, TrialPaused
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.inbox import MOST_ACTS, Request, post
from tracking.record.layout import SweepFolder, TrialFolder
from tracking.record.predictions import read_predictions
from tracking.record.spans import trial_minutes

SPACE = only_sampled(first_rung_epochs=9)
STATE = (lambda head: len(head).to_bytes(8, "little") + head)(b'{"__metadata__":{"state":"{\\"epoch\\":1}"}}')
"""The head of a training state after epoch 1."""


def desk(root: Path, trials: int = 3, **more: object) -> Desk:
    return open_desk(root, SPACE, spec(trials=trials), **more)


def ask(held: Desk, verb: str, room: int | None = 4, **arguments: object) -> Act:
    return Acts(held.folder, SPACE, room).perform(
        held.director, Request(verb=verb, arguments=arguments, who="ana@here")
    )


def test_the_driver_reads_its_inbox_and_answers_in_the_journal(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    acts = Acts(held.folder, SPACE, 4)
    task = held.task()
    path = post(held.folder, Request(verb="pause", arguments={"trial": 0}, who="ana@here"))
    (held.folder.inbox / "000-broken.json").write_text("{")
    acts(held.director)
    assert list(held.folder.inbox.iterdir()) == []
    broken, pause = held.director.history.acts
    assert broken.act == "broken", "the command that waits for the answer knows it by this"
    assert (broken.refused, pause.refused, pause.who) == (True, False, "ana@here")
    assert pause.answer == "trial 0 pauses at its next report"
    assert not held.director.take(0, report(task, 1))
    path.write_text(Request(act=pause.act, verb="pause").model_dump_json())
    acts._look_at = 0
    acts(held.director)
    assert len(held.director.history.acts) == 2, "one that was done when the driver died is not done again"


def test_a_full_inbox_takes_no_more(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    for _ in range(MOST_ACTS):
        post(held.folder, Request(verb="pause"))
    with pytest.raises(TrackingError, match="64 acts wait already"):
        post(held.folder, Request(verb="pause"))
    with pytest.raises(TrackingError, match=r"try: its arguments have 70,\d+ bytes, at most 65,536 are taken"):
        post(held.folder, Request(verb="try", arguments={"settings": ["weights=" + "x" * 70_000]}))


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("pause", {"trial": 9}, "no trial 9"),
        ("pause", {"trial": 0}, "trial 0 is over; it is done"),
        ("unpause", {}, "nothing is paused"),
        ("unpause", {"trial": 1}, "trial 1 is not paused"),
        ("extend", {"trials": "2"}, "the sweep has 3 trials; give more"),
        ("extend", {"time_budget_seconds": 60}, "has no time budget"),
        ("set", {"priorty": "3"}, "'priorty' cannot be set"),
        ("set", {"max-concurrent": "9"}, "at most 4 trials fit at once"),
        ("set", {"max-concurrent": "x"}, "must be a whole number"),
        ("set", {"priority": "high"}, "priority=high: must be a whole number"),
        ("set", {"priority": "9" * 400}, "must be a whole number"),
        ("extend", {"trials": 5}, ""),
        ("set", {"weight": "0"}, "must be a number above 0"),
        ("try", {"settings": ["lerning=3"]}, "'lerning': unknown setting"),
        ("try", {"settings": ["batch_size=0"]}, "batch_size"),
        ("fork", {"trial": 0, "settings": ["lr=0.1"]}, "trial 0 is done and has no state to continue from"),
        ("retry", {}, "no trial has failed"),
        ("dance", {}, "not an act of this version"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    tmp_path: Path, verb: str, arguments: dict[str, object], words: str
) -> None:
    held = desk(tmp_path / "night")
    first, _ = held.task(), held.task()
    held.director.take(0, report(first, 1))
    held.director.take(0, ended(first))
    before = held.director.history.spec
    act = ask(held, verb, **arguments)
    assert act.refused
    assert words in act.answer
    assert "\n" not in act.answer
    assert held.director.history.spec == before
    assert held.director.demand == 2
    assert held.director.out == [1]


def test_a_fork_whose_state_cannot_be_kept_does_not_end_the_sweep(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    held.director.take(0, report(held.task(), 1))
    held.folder.trial(0).create().last.write_bytes(STATE)
    held.folder.forks.write_text("no folder")
    assert "cannot make the trial's folder" in ask(held, "fork", trial=0, settings=["lr=0.05"]).answer
    assert not held.director.history.wanted


def test_there_may_be_no_trial_yet(tmp_path: Path) -> None:
    assert ask(desk(tmp_path / "night"), "pause", trial=0).answer == "no trial 0; there are none yet"


def test_of_several_extensions_all_are_done_or_none(tmp_path: Path) -> None:
    space = replace(SPACE, suggest=lambda trial: config(lr_policy="wsd"))
    held = open_desk(tmp_path / "night", space, spec(trials=2, max_epochs=5))
    task = held.task()
    for epoch in range(1, 6):
        held.director.take(0, report(task, epoch))
    lasting = held.folder.trial(0).lasting.create()
    lasting.last.write_bytes(STATE.replace(b"1}", b"4}"))
    held.director.take(0, ended(task))
    assert "has no time budget" in ask(held, "extend", epochs="8", time_budget_seconds=60).answer
    assert not held.folder.forks.exists()
    assert not ask(held, "extend", epochs="8").refused
    assert held.folder.trial(0).last.is_file()


@pytest.mark.parametrize("extended_first", [False, True])
@pytest.mark.parametrize(
    ("policy", "state", "verb", "length"),
    [
        ("constant", 1, "try", 8),
        ("constant", 1, "fork", 8),
        ("constant", 1, "retry", 8),
        ("wsd", 4, "fork", 8),  # before the cooldown, which is the last of 5 epochs
        ("wsd", 5, "fork", 5),
        ("cosine", 1, "try", 8),
        ("cosine", 1, "fork", 5),
        ("cosine", None, "retry", 8),
    ],
)
def test_an_asked_trial_that_starts_after_an_extension_has_the_new_length(
    tmp_path: Path, policy: str, state: int | None, verb: str, length: int, extended_first: bool
) -> None:
    space = replace(SPACE, suggest=lambda trial: config(lr_policy=policy))
    held = open_desk(tmp_path / "night", space, spec(trials=2, max_epochs=5))
    task = held.task()
    for epoch in range(1, (state or 1) + 1):
        held.director.take(0, report(task, epoch))
    if state:
        held.folder.trial(0).last.write_bytes(STATE.replace(b"1}", b"%d}" % state))
    held.director.take(0, TrialEnd(attempt=0, state="failed", reason="ValueError"))
    given = {"try": {"settings": ["lr=0.05"]}, "fork": {"trial": 0, "settings": ["lr=0.05"]}, "retry": {}}[verb]
    acts = [(verb, given), ("extend", {"epochs": "8"})]
    for name, arguments in reversed(acts) if extended_first else acts:
        assert not ask(held, name, **arguments).refused
    started = held.task()
    assert started.epochs == SweepHistory.load(held.folder.journal).trials[started.trial].started.epochs == length


def test_a_retry_in_a_group_keeps_the_length_of_the_group(tmp_path: Path) -> None:
    space = replace(SPACE, suggest=lambda trial: config())
    held = open_desk(tmp_path / "night", space, spec(trials=1, max_epochs=5, replicates=2))
    first, _ = held.task(), held.task()
    for epoch in range(1, 6):
        held.director.take(0, report(first, epoch))
    held.director.take(0, ended(first))
    held.director.take(1, TrialEnd(attempt=0, state="failed", reason="ValueError"))
    ask(held, "retry")
    answer = ask(held, "extend", epochs="8").answer
    assert "; not the retry of trial 1: the others of its group have their length" in answer
    assert held.task().epochs == 5


def test_a_trial_whose_weights_are_gone_when_it_starts_fails_alone(tmp_path: Path) -> None:
    def resolve(asked: TrialConfig) -> TrialConfig:
        if asked.recipe.lr == 0.05:
            raise InputError("weights 'gone': no such file")
        return asked

    held = desk(tmp_path / "night", resolve=resolve)
    held.director.take(0, report(held.task(), 1))
    ask(held, "try", settings=["lr=0.05"])
    assert held.task().trial == 2
    failed = held.director.history.trials[1]
    assert (failed.state, failed.reason) == ("failed", "weights 'gone': no such file")


def test_a_retry_that_fails_when_it_starts_keeps_the_state_for_the_next_retry(tmp_path: Path) -> None:
    gone: list[TrialConfig] = []

    def resolve(asked: TrialConfig) -> TrialConfig:
        if asked in gone:
            raise InputError("weights 'gone': no such file")
        return asked

    held = desk(tmp_path / "night", resolve=resolve)
    task = held.task()
    held.director.take(0, report(task, 1))
    held.folder.trial(0).last.write_bytes(STATE)
    held.director.take(0, TrialEnd(attempt=0, state="failed", reason="ValueError"))
    assert ask(held, "retry").answer == "trains again: trial 0 from its state after epoch 1"
    gone.append(task.config)
    assert held.task().trial == 2
    gone.clear()
    assert held.director.history.trials[1].reason == "weights 'gone': no such file"
    assert ask(held, "retry").answer == "trains again: trial 1 from its state after epoch 1"


def test_a_tried_setting_is_no_other_parameter_with_the_same_end(tmp_path: Path) -> None:
    def suggest(trial: Any) -> TrialConfig:
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        trial.suggest_float("head.lr", 1e-4, 1.0, log=True)
        return config(lr)

    space = replace(SPACE, suggest=suggest)
    held = open_desk(tmp_path / "night", space, spec(trials=1))
    task = held.task()
    held.director.take(0, report(task, 1))
    before = held.director.history.trials[0].started.params
    Acts(held.folder, space, 4).perform(held.director, Request(verb="try", arguments={"settings": ["lr=0.05"]}))
    assert held.task().trial == 1
    assert held.director.history.trials[1].started.params == {**before, "lr": 0.05}


def test_a_grid_is_extended_to_its_last_point_and_tried_settings_are_more(tmp_path: Path) -> None:
    space = replace(SPACE, suggest=lambda trial: config(trial.suggest_categorical("lr", [0.01, 0.02])), sampler="grid")
    held = open_desk(tmp_path / "night", space, spec(trials=2, sampler="grid"))
    acts = Acts(held.folder, space, 4)
    held.director.take(0, report(held.task(), 1))

    def answer(verb: str, **arguments: object) -> str:
        return acts.perform(held.director, Request(verb=verb, arguments=arguments)).answer

    assert answer("extend", trials="+1") == "--trials 3: the grid of fake_space has 2 points; give at most 2"
    answer("try", settings=["lr=0.05"])
    assert answer("extend", trials="+1").endswith("give at most 3")


def test_a_trial_in_its_last_epoch_is_not_paused(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    task = held.task()
    held.director.take(0, report(task, 1))
    held.director.take(0, report(task, 2))
    assert ask(held, "pause", trial=0).answer == "trial 0 is in its last epoch, and ends at its next report"


def test_acts_that_contradict_each_other(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    held.task()
    assert not ask(held, "pause", trial=0).refused
    assert ask(held, "pause", trial=0).answer == "trial 0 pauses at its next report already"
    assert not ask(held, "unpause", trial=0).refused
    assert not ask(held, "stop", trial=0).refused
    assert "is finishing already: stopped by ana@here" in ask(held, "pause", trial=0).answer
    assert not ask(held, "stop").refused
    assert "the sweep is stopping: stopped by ana@here" in ask(held, "pause").answer
    assert not ask(held, "stop").refused, "it contradicts nothing; the first may have been a signal"


def test_a_stopped_trial_is_over_and_teaches_nothing(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    first, second = held.task(), held.task()
    held.director.take(0, report(first, 1))
    ask(held, "pause", trial=1)
    held.director.take(1, report(second, 1))
    for number in (0, 1):
        ask(held, "stop", trial=number)
    held.director.take(0, ended(first))
    ends = [trial.end for trial in held.director.history.trials.values()]
    assert [(end.state, end.told, end.final) for end in ends if end] == [("stopped", "nothing", True)] * 2
    again = desk(tmp_path / "night")
    assert again.director.history == held.director.history
    assert again.task().trial == 2


def test_a_trial_that_is_stopped_after_its_driver_was_killed_worked_until_the_last_record(
    run: Callable[..., int], out: Path
) -> None:
    assert run("--trials", "2") == 0
    journal = out / "night/journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    killed = next(place for place, event in enumerate(events) if event["event"] == "epoch") + 1
    for event in events:
        event["time_ms"] -= 14 * 3_600_000
    journal.write_text("".join(json.dumps(event) + "\n" for event in events[:killed]))
    minutes = trial_minutes(SweepHistory.load(journal).trials[0])
    assert main(["stop", "night", "0", "--out", str(out)]) == 0
    history = SweepHistory.load(journal)
    assert history.trials[0].state == "stopped"
    assert trial_minutes(history.trials[0]) == minutes < 1
    assert history.stopped is not None
    assert history.stopped.time_ms == events[killed - 1]["time_ms"]


def test_a_paused_sweep_waits_for_its_unpause(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    task = held.task()
    ask(held, "pause")
    assert ask(held, "pause").answer == "the sweep is paused already"
    assert not held.director.take(0, report(task, 1))
    assert held.director.next_task() is None
    assert not held.director.exhausted
    (paused,) = [event for event in held.events() if isinstance(event, TrialPaused)]
    assert paused.text == "paused by ana@here, as the whole sweep", "which MLflow shows"
    history = held.director.history
    assert history.reason_of(history.trials[0]) == paused.text
    assert ask(held, "unpause", trial=0).answer == "trial 0 continues with the whole sweep: unpause night"
    ask(held, "unpause")
    assert history.reason_of(history.trials[0]) == "waits for a slot"
    assert held.task().trial == 0


def test_a_group_is_not_forked_by_one_of_its_members(tmp_path: Path) -> None:
    held = open_desk(tmp_path / "night", SPACE, spec(trials=2, replicates=3))
    held.director.take(0, report(held.task(), 1))
    refused = ask(held, "fork", trial=0, settings=["lr=0.05"])
    assert refused.answer == (
        "trial 0 is a member of a group of 3 trials, and a fork would continue only this one; 'try' trains other "
        "settings in all members"
    )
    assert not held.director.history.wanted


def test_an_extended_sweep_has_more_trials_also_for_the_next_driver(tmp_path: Path) -> None:
    held = desk(tmp_path / "night", trials=1)
    assert ask(held, "extend", trials="+2").answer == "3 trials instead of 1"
    InlineRunner().run(held.director, good_body)
    assert len(held.director.history.trials) == 3
    assert SweepHistory.load(held.folder.journal).spec["trials"] == 3


def test_fewer_at_once(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    tasks = [held.task() for _ in range(3)]
    ask(held, "set", **{"max-concurrent": "2"})
    took = [held.director.take(task.trial, report(task, 1, 0.1 * task.trial)) for task in tasks]
    assert sum(took) == 2
    assert len(held.director.out) == 2


def test_the_answer_has_a_number_as_it_was_set(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    act = ask(held, "set", priority="1234567", weight="0.1234567", **{"max-concurrent": "2"})
    assert act.answer == "priority 1234567, weight 0.1234567, max-concurrent 2"


def test_tried_settings_come_next_and_teach_the_sampler_what_it_could_have_drawn(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    first = held.task()
    held.director.take(0, report(first, 1))
    assert ask(held, "try", settings=["lr=0.02"]).answer == "starts next: the settings of trial 0 with lr=0.02"
    assert "the sampler does not learn from it" in ask(held, "try", settings=["lr=0.5", "momentum=0.5"]).answer
    again = desk(tmp_path / "night")  # a driver that died before it started them
    tasks = [again.task() for _ in range(3)]
    assert [task.config.recipe.lr for task in tasks[1:]] == [0.02, 0.5]
    started = [again.director.history.trials[number].started for number in (1, 2)]
    assert [bool(one.params) for one in started] == [True, False]
    assert started[0].params["lr"] == 0.02
    assert started[0].wanted is not None
    assert (started[0].wanted.verb, started[0].wanted.source) == ("try", 0)
    third = desk(tmp_path / "night", trials=5)
    InlineRunner().run(third.director, good_body)
    assert third.director.history.count("done") == 5
    assert held.director.spec.trials == 5, "those that were asked for come on top"


def test_a_tried_setting_is_the_parameter_whose_name_ends_with_it(tmp_path: Path) -> None:
    space = replace(zoo_space.SPACE, name="zoo_space")
    held = open_desk(tmp_path / "night", space, spec(trials=1))
    task = held.task()
    lr, before = f"{task.config.net.name}.lr", held.director.history.trials[0].started.params
    held.director.take(0, report(task, 1))
    tried = before[lr] * 0.999
    act = Acts(held.folder, space, 4).perform(
        held.director, Request(verb="try", arguments={"settings": [f"lr={tried}"]})
    )
    assert act.answer == f"starts next: the settings of trial 0 with lr={tried}"
    assert held.task().trial == 1
    assert held.director.history.trials[1].started.params == {**before, lr: tried}


def test_failed_trials_are_retried_as_new_ones_once(tmp_path: Path) -> None:
    def body(task: Task) -> Iterator[object]:
        if task.trial == 1:
            yield TrialEnd(attempt=task.attempt, state="failed", reason="ValueError")
        else:
            yield from good_body(task)

    held = desk(tmp_path / "night")
    InlineRunner().run(held.director, body)  # type: ignore[arg-type]
    assert ask(held, "retry").answer == "trains again: trial 1"
    assert ask(held, "retry").refused
    InlineRunner().run(held.director, body)  # type: ignore[arg-type]
    again = held.director.history.trials[3]
    assert (again.state, again.started.config) == ("done", held.director.history.trials[1].started.config)


def failing(*numbers: int) -> Callable[[Task], Iterator[Message]]:
    """A body of which these trials fail."""

    def body(task: Task) -> Iterator[Message]:
        if task.trial in numbers:
            yield TrialEnd(attempt=task.attempt, state="failed", reason="ValueError")
        else:
            yield from good_body(task)

    return body


def test_a_further_member_of_a_group_is_retried_when_all_else_has_run(tmp_path: Path) -> None:
    held = open_desk(tmp_path / "night", SPACE, spec(trials=1, replicates=2))
    InlineRunner().run(held.director, failing(1))
    assert held.director.exhausted
    assert ask(held, "retry").answer == "trains again: trial 1"
    assert not held.director.exhausted
    assert held.director.demand == 1
    InlineRunner().run(held.director, good_body)
    trials = held.director.history.trials
    assert (trials[2].state, trials[2].started.group) == ("done", trials[1].started.group)
    assert held.director.exhausted
    assert len(trials) == 3


def test_the_group_of_a_retried_member_gets_its_other_members(tmp_path: Path) -> None:
    held = open_desk(tmp_path / "night", SPACE, spec(trials=2, replicates=3))
    InlineRunner().run(held.director, failing(1))
    assert [len(group.members) for group in held.director.history.groups()] == [2, 3], "it was given up"
    assert not ask(held, "retry").refused
    InlineRunner().run(held.director, good_body)
    assert all(group.is_whole for group in held.director.history.groups())
    assert len(held.director.history.trials) == 7


def test_a_finished_sweep_whose_failed_fold_is_retried_is_resumed(
    sweep: Callable[..., SweepResult], space: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"space": space, "trials": 1, "folds": 2}
    assert sweep(**asked, body=failing(1)).history.finished
    assert main(["retry", "night", "--failed", "--out", str(out)]) == 0
    assert "trains again: trial 1" in lines(capsys)
    assert not SweepHistory.load(out / "night/journal.jsonl").finished
    ended = sweep(**asked, resume=True)
    assert (ended[2].state, ended.history.trials[2].started.fold) == ("done", 2)
    assert ended.history.finished


def test_a_retry_continues_from_the_state_of_the_failed_trial(
    tiny_csv: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = Baseline("report", config(batch_size=8))
    space = Space(suggest=suggest, baselines=[baseline], max_epochs=5, trials=1, name="lenet_space")

    def sweep(name: str, **more: Any) -> SweepResult:
        return run_sweep(space, data=str(tiny_csv), name=name, runner="inline", out=out, figures=False, **QUIET, **more)

    assert sweep("night").exit_code == 0
    checkpoint, fails = run_trial._checkpoint, [True]

    def failing(folder: TrialFolder, snapshot: Snapshot, reports: dict[int, EpochReport]) -> None:
        checkpoint(folder, snapshot, reports)
        if snapshot.epoch == 4 and fails.pop():
            raise ValueError("no luck")

    monkeypatch.setattr(run_trial, "_checkpoint", failing)
    assert sweep("unlucky").exit_code == 1
    capsys.readouterr()
    assert main(["retry", "unlucky", "--failed", "--out", str(out)]) == 0
    assert "trains again: trial 0 from its state after epoch 4" in lines(capsys)
    ended = sweep("unlucky", resume=True)
    assert ended.exit_code == 0, ended.faults
    whole, retried = (SweepHistory.load(out / name / "journal.jsonl") for name in ("night", "unlucky"))
    failed, again = retried.trials[0], retried.trials[1]
    assert (failed.state, failed.last_epoch, again.state) == ("failed", 3, "done")
    assert (again.started.baseline, again.started.wanted.epoch) == (failed.started.baseline, 4)  # type: ignore[union-attr]

    def learned(trial: TrialHistory) -> list[tuple[float, float]]:
        return [(one.metrics["train_loss"], one.metrics["val_accuracy"]) for one in trial.epochs]

    assert learned(again) == learned(whole.trials[0])
    assert not list((out / "unlucky/trials").glob("*/last.safetensors"))


def forked_after(epoch: int, *settings: str) -> Callable[[Task], Iterator[Message]]:
    """A body that asks for a fork from the state after an epoch, when trial 0 reports the next one."""

    def body(task: Task) -> Iterator[Message]:
        for message in run_trial.run_trial(task):
            if task.trial == 0 and isinstance(message, EpochReport) and message.epoch == epoch + 1:
                fork = {"trial": 0, "settings": settings, "epoch": epoch}
                post(SweepFolder(Path(task.folder).parents[1]), Request(verb="fork", arguments=fork))
            yield message

    return body


@pytest.fixture
def falling_loss(sweep: Callable[..., SweepResult], monkeypatch: pytest.MonkeyPatch) -> Callable[..., SweepResult]:
    """A sweep of one trial whose best epoch, by loss, is always its last one."""
    monkeypatch.setattr("sweeps.driver.acts._LOOK_SECONDS", 0.0)
    config = TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.01, batch_size=8), keep_best="val_loss")
    space = Space(suggest=suggest, baselines=[Baseline("report", config)], max_epochs=4, trials=1, name="lenet_space")
    return functools.partial(sweep, space=space, figures=False)


def test_a_fork_from_an_earlier_epoch_continues_from_there_though_a_later_one_was_better(
    falling_loss: Callable[..., SweepResult],
) -> None:
    ended = falling_loss(body=forked_after(2, "lr=1e-12"))
    assert ended.history.acts[0].answer == "starts next: from trial 0's state after epoch 2"
    source, fork = (ended.history.trials[number] for number in (0, 1))
    losses = [done.metrics["val_loss"] for done in source.epochs]
    assert losses == sorted(losses, reverse=True), "or this would show nothing"
    assert (fork.state, fork.last_epoch) == ("done", 4)
    assert [done.metrics["learning_rate"] for done in fork.epochs] == [0.01, 0.01, 1e-12, 1e-12]
    assert [done.metrics["train_loss"] for done in fork.epochs[:2]] == [
        done.metrics["train_loss"] for done in source.epochs[:2]
    ]
    files, best = ended.folder.trial(1), fork.best_epoch()
    assert best is not None
    assert best.epoch == 2, "with so low a rate it learns no more"
    answers = read_predictions(files, 2)
    assert answers is not None
    assert answers.is_right.mean() == pytest.approx(best.metrics["val_accuracy"])
    assert read_tensors(files.best)[1]["epoch"] == "2"


@pytest.mark.parametrize(
    ("setting", "rates"),
    [
        ("lr_policy=constant", [1e-20, 1e-20]),
        ("lr=3e-20", [3e-20, 3e-20]),
        ("lr=1e-20", [1e-20, 1e-20]),
        ("gamma=0.5", [1e-21, 5e-22]),
    ],
)
def test_a_fork_of_a_reduced_trial_trains_at_the_rate_that_it_is_given(
    sweep: Callable[..., SweepResult], monkeypatch: pytest.MonkeyPatch, setting: str, rates: list[float]
) -> None:
    monkeypatch.setattr("sweeps.driver.acts._LOOK_SECONDS", 0.0)
    # So small a rate changes no weight, so the accuracy never rises.
    recipe = Recipe(lr=1e-20, lr_policy="plateau", gamma=0.1, patience_epochs=0, batch_size=8)
    baseline = Baseline("report", TrialConfig(net=LeNetConfig(), recipe=recipe))
    space = Space(suggest=suggest, baselines=[baseline], max_epochs=4, trials=1, name="lenet_space")
    ended = sweep(space=space, figures=False, body=forked_after(2, setting))
    source, fork = ([done.metrics["learning_rate"] for done in ended.history.trials[trial].epochs] for trial in (0, 1))
    assert source == pytest.approx([1e-20, 1e-20, 1e-21, 1e-22], rel=1e-6, abs=0)
    assert fork == pytest.approx([1e-20, 1e-20, *rates], rel=1e-6, abs=0)


def test_a_fork_whose_best_epoch_is_lost_is_refused_with_what_can_be_forked(
    falling_loss: Callable[..., SweepResult],
) -> None:
    ended = falling_loss(body=forked_after(2, "keep_best=val_accuracy"))
    (act,) = ended.history.acts
    accuracies = [done.metrics["val_accuracy"] for done in ended.history.trials[0].epochs]
    assert accuracies[0] == accuracies[1], "or this would show nothing"
    assert act.answer == (
        "trial 0 cannot be continued after epoch 2: of its best epoch until then by val_accuracy, 1, weights and "
        "predictions are not kept; use try"
    )
    assert len(ended.history.trials) == 1
    assert not list(ended.folder.forks.iterdir())


def test_a_lost_best_epoch_leaves_the_other_state_to_be_forked(tmp_path: Path) -> None:
    held = desk(tmp_path / "night")
    task, files = held.task(), held.folder.trial(0).create()
    values = [0.5, 0.4, 0.6]
    for epoch, value in enumerate(values, start=1):
        held.director.take(0, report(task, epoch, value))
        reports = [report(task, one, values[one - 1]).model_dump(mode="json") for one in range(1, epoch + 1)]
        about = {"state": json.dumps({"epoch": epoch}), "extra": json.dumps({"reports": reports})}
        if files.last.exists():
            files.last.replace(files.previous)
        write_tensors(files.last, {}, about)
    np.savez(files.val_probabilities, probabilities=np.ones((1, 2)), labels=np.zeros(1), epoch=3)
    assert ask(held, "fork", trial=0, settings=["lr=0.05"], epoch=2).answer.endswith("are not kept; use --epoch 3")
    assert ask(held, "fork", trial=0, settings=["lr=0.05"]).answer.endswith("from trial 0's state after epoch 3")


# By the commands


def lines(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


@pytest.mark.usefixtures("space")
def test_the_status_of_a_sweep_without_trials_has_no_table(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--cpu-hours", "1e-9")
    (out / "night/journal.jsonl").write_text((out / "night/journal.jsonl").read_text().partition("\n")[0] + "\n")
    capsys.readouterr()
    assert main(["status", "night", "--out", str(out)]) == 0
    said = lines(capsys)
    assert "sweep night: " in said
    assert "val_accuracy" not in said


@pytest.mark.usefixtures("space")
def test_a_sweep_that_nobody_drives_is_steered_and_says_how_to_go_on(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--trials", "2") == 0
    capsys.readouterr()
    assert main(["extend", "night", "--trials", "+1", "--out", str(out)]) == 0
    said = lines(capsys)
    assert "night: 3 trials instead of 2" in said
    assert f"python -m sweeps resume night --out {out}" in said
    assert main(["try", "night", "lr=0.03", "--json", "--out", str(out)]) == 0
    assert json.loads(lines(capsys))["spec"]["trials"] == 4
    assert run("--resume") == 0
    history = SweepHistory.load(SweepFolder(out / "night").journal)
    assert [trial.started.wanted is not None for trial in history.trials.values()] == [False, False, True, False]
    capsys.readouterr()
    assert main(["status", "night", "--out", str(out)]) == 0
    assert "try lr=0.03: starts next" in lines(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pause", "nihgt"], "no sweep 'nihgt'"),
        (["pause", "night", "x"], "expected a trial's number"),
        (["pause", "night", "0"], "trial 0 is over; it is done"),
        (["pause", "night/0"], "trial 0 is over; it is done"),
        (["logs", "night/9"], "night has no trial '9'; it has 0 to 0"),
        (["set", "night", "priority=2"], "the sweep is finished; extend it first"),
        (["try", "night", "batch_size=57"], "larger than the train split of 56 images"),
        (["try", "night", "weights=run:dusk/3"], "no sweep 'dusk'"),
        (["pause", "night"], "does not run"),
        (["stop", "night"], "does not run"),
        (["extend", "night"], "no change is given"),
        (["extend", "night", "--trials", "x"], "expected a number, as 40"),
        (["extend", "night", "--time-budget", "5m"], "expected an increase"),
        (["set", "night", "max-concurrent"], "expected key=value"),
        (["fork", "night/0", "lr=0.1"], "has no state to continue from"),
        (["fork", "night/9", "lr=0.1"], "no trial '9'"),
        (["retry", "night"], "--failed"),
        (["try", "night", "distill=nihgt"], "distill 'nihgt': no sweep 'nihgt' in"),
        (["try", "night", "weights=run:night/9"], "night has no trial '9'"),
        (["resume", "night", "--time-budget", "6s"], "a sweep resumes with its own options"),
        (["pasue", "night"], "unknown 'pasue'; did you mean 'pause'?"),
        (
            ["pause", "night", "--jsn"],
            "unknown argument --jsn; did you mean '--json'?; see python -m sweeps pause --help",
        ),
    ],
)
def test_bad_input_is_one_line(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    run("--trials", "1")
    said = refused(capsys, lambda: main([*words, "--out", str(out)]))
    assert message in said
    assert "\n" not in said


def test_a_grid_with_a_tried_trial_is_resumed(run: Callable[..., int], space: str, out: Path) -> None:
    file = Path(space)
    file.write_text(
        file.read_text().replace('suggest_float("lr", 0.001, 0.1, log=True)', 'suggest_categorical("lr", [0.02, 0.03])')
    )
    assert run("--sampler", "grid") == 0
    assert main(["try", "night", "lr=0.05", "--out", str(out)]) == 0
    assert run("--sampler", "grid", "--resume") == 0
    assert SweepHistory.load(out / "night/journal.jsonl").count("pruned") == 2


@pytest.mark.parametrize(
    "ways",
    [
        [["run", "--trials", "4", "--resume"]],
        [["extend", "night", "--trials", "+2"], ["resume", "night"]],
        [["extend", "night", "--trials", "+1"], ["extend", "night", "--trials", "+1"], ["resume", "night"]],
        [["try", "night", "lr=0.05"], ["extend", "night", "--trials", "+2"], ["resume", "night"]],
    ],
)
def test_a_sweep_of_baselines_alone_that_gets_more_trials_continues_with_the_next_baselines(
    run: Callable[..., int], space: str, out: Path, ways: list[list[str]]
) -> None:
    four_baselines(space)
    assert run("--trials", "2") == 0
    for verb, *words in ways:
        assert (run(*words) if verb == "run" else main([verb, *words, "--out", str(out)])) == 0
    assert trained_baselines(out) == ["A", "B", "C", "D"]


def test_baselines_that_a_driver_got_are_trained_also_after_it_was_killed(
    run: Callable[..., int], space: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(task: Task) -> Iterator[Message]:
        if task.trial == 0:
            post(SweepFolder(out / "night"), Request(verb="extend", arguments={"trials": "+2"}))
        yield from good_body(task)

    monkeypatch.setattr("sweeps.driver.acts._LOOK_SECONDS", 0.0)
    monkeypatch.setattr("sweeps.cli.main.run_plan", functools.partial(run_plan, body=body, **QUIET))
    four_baselines(space)
    assert run("--trials", "2") == 0
    assert trained_baselines(out) == ["A", "B", "C", "D"]
    journal = out / "night/journal.jsonl"
    records = journal.read_text().splitlines(keepends=True)
    act = next(place for place, record in enumerate(records) if json.loads(record)["event"] == "act")
    journal.write_text("".join(records[: act + 1]))
    shutil.rmtree(out / "night/trials")
    assert main(["resume", "night", "--out", str(out)]) == 0
    assert trained_baselines(out) == ["A", "B", "C", "D"]


def four_baselines(space: str) -> None:
    file = Path(space)
    four = ", ".join(f'Baseline("{name}", config(0.0{place}))' for place, name in enumerate("ABCD", start=1))
    file.write_text(file.read_text().replace('Baseline("report", config(0.01), "50 %")', four))


def trained_baselines(out: Path) -> list[str | None]:
    trials = SweepHistory.load(out / "night/journal.jsonl").trials.values()
    return [one.started.baseline for one in trials if one.started.baseline]


def test_two_commands_at_once_on_a_sweep_that_nobody_drives_are_both_done(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--trials", "1")
    folder, over = SweepFolder(out / "night"), threading.Event()

    def other() -> None:
        with hold_folder(folder.root):
            over.wait(20)

    command = threading.Thread(target=other)
    command.start()
    threading.Timer(1.0, over.set).start()
    try:
        capsys.readouterr()
        assert main(["extend", "night", "--trials", "+1", "--out", str(out)]) == 0
    finally:
        over.set()
        command.join()
    assert "2 trials instead of 1" in lines(capsys)
    assert SweepHistory.load(folder.journal).spec["trials"] == 2


def test_a_command_says_for_whom_it_waits(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.cli.steering.act_verbs._SILENT_SECONDS", 0.1)
    run("--trials", "1")
    with hold_folder(out / "night"):
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert main(["pause", "night", "--out", str(out)]) == 130
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"warning: night: waiting for host {socket.gethostname()}, pid {os.getpid()}, since")
    assert list((out / "night/inbox").iterdir()) == [], "Ctrl-C withdraws it"


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_withdraws_its_act(run: Callable[..., int], out: Path, ending: signal.Signals) -> None:
    run("--trials", "1")
    command = [sys.executable, "-m", "sweeps", "pause", "night", "--out", str(out)]
    with hold_folder(out / "night"):
        pause = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
        while not list((out / "night").glob("inbox/*.json")):
            assert pause.poll() is None
            time.sleep(0.05)
        pause.send_signal(ending)
        assert pause.wait(60) == 128 + ending
    assert list((out / "night/inbox").iterdir()) == []


def test_an_act_while_the_driver_starts_holds(tiny_csv: Path, space: str, out: Path, run: Callable[..., int]) -> None:
    run("--trials", "1")
    options = {"name": "night", "out": out, "resume": True, "runner": "inline", "data": str(tiny_csv)}
    assert main(["extend", "night", "--trials", "+1", "--out", str(out)]) == 0
    plan = make_plan(space, Options.parse(options), find_hardware)
    assert main(["extend", "night", "--trials", "+1", "--out", str(out)]) == 0
    assert main(["set", "night", "priority=3", "--out", str(out)]) == 0
    priorities: list[int] = []

    def body(task: Task) -> Iterator[Message]:
        priorities.extend(claim.priority for claim in FileClaims(ledger_folder()).all())
        yield from good_body(task)

    result = run_plan(plan, body=body, **QUIET)
    assert (len(result), set(priorities)) == (3, {3})
    assert (result.history.spec["trials"], result.history.spec["priority"]) == (3, 3)


def test_a_driver_refuses_a_trial_that_does_not_fit_its_faces(
    sweep: Callable[..., SweepResult], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.driver.acts._LOOK_SECONDS", 0.0)

    def body(task: Task) -> Iterator[Message]:
        for message in good_body(task):
            if task.trial == 0 and isinstance(message, EpochReport) and message.epoch == 2:
                post(SweepFolder(out / "night"), Request(verb="try", arguments={"settings": ["batch_size=57"]}))
            yield message

    (act,) = sweep(body=body).history.acts
    assert act.refused
    assert "larger than the train split of 56 images" in act.answer


@pytest.mark.parametrize("options", [["--trials", "1"], ["--trials", "3", "--pruner", "promoting"]])
def test_a_sweep_that_waits_for_a_person_says_how_it_continues(
    options: list[str],
    run: Callable[..., int],
    out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def body(task: Task) -> Iterator[Message]:
        if (task.trial, task.attempt) == (0, 0):
            post(SweepFolder(out / "night"), Request(verb="pause", arguments={"trial": 0}))
        yield from good_body(task)

    monkeypatch.setattr("sweeps.driver.acts._LOOK_SECONDS", 0.0)
    monkeypatch.setattr("sweeps.cli.main.run_plan", functools.partial(run_plan, body=body, **QUIET))
    assert run(*options) == 0
    said = lines(capsys)
    assert f"python -m sweeps unpause night --out {out}\n  python -m sweeps resume night --out {out}" in said
    for verb in ("unpause", "resume"):
        assert main([verb, "night", "--out", str(out)]) == 0
    assert SweepHistory.load(out / "night/journal.jsonl").finished


def test_a_sweep_of_another_user_is_not_changed(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--trials", "1")
    owner, before = os.geteuid(), (out / "night/journal.jsonl").read_bytes()
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    said = refused(capsys, lambda: main(["extend", "night", "--trials", "+1", "--out", str(out)]))
    assert said.endswith(f"belongs to user id {owner}, not to you ({owner + 1}): only its owner can change it")
    assert (out / "night/journal.jsonl").read_bytes() == before


def test_a_command_that_comes_while_the_driver_writes_a_line_is_answered(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--trials", "1")
    held = desk(out / "night", trials=1)
    acts, begun, over = Acts(held.folder, SPACE, 1), threading.Event(), threading.Event()
    line = TrialDrawn(trial=0, epochs=3).model_dump_json().encode() + b"\n"

    def drive() -> None:
        with hold_folder(held.folder.root), held.folder.journal.open("ab", buffering=0) as journal:
            journal.write(line[:9])
            begun.set()
            while not list(held.folder.inbox.glob("*")):
                over.wait(0.01)
            journal.write(line[9:])
            while not over.wait(0.01):
                acts(held.director)

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        assert begun.wait(10)
        capsys.readouterr()
        assert main(["extend", "night", "--trials", "+1", "--out", str(out)]) == 0
    finally:
        over.set()
        driver.join()
    assert lines(capsys) == "night: 2 trials instead of 1\n"


def test_the_command_waits_for_the_drivers_answer(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--trials", "1")
    held = desk(out / "night", trials=1)
    acts, over = Acts(held.folder, SPACE, 1), threading.Event()

    def drive() -> None:
        with hold_folder(held.folder.root):
            while not over.is_set():
                acts(held.director)

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        capsys.readouterr()
        assert main(["extend", "night", "--trials", "+1", "--out", str(out)]) == 0
        assert lines(capsys) == "night: 2 trials instead of 1\n"
        said = refused(capsys, lambda: main(["pause", "night", "0", "--out", str(out)]))
        assert said == "night: trial 0 is over; it is done"
    finally:
        over.set()
        driver.join()
    assert list(held.folder.inbox.iterdir()) == []
