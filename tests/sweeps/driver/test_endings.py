import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import SweepResult
from sweeps.driver.director import Director
from sweeps.driver.runner import InlineRunner
from sweeps.search.study import Study
from sweeps.space import Pruner
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import SPACE, good_body, metrics, open_desk, outcome, report, slow_body, spec
from tracking.record.events import DriverStopped, TrialEnded, TrialStarted
from tracking.record.journal import read
from tracking.tracker import NoTracker

Sweep = Callable[..., SweepResult]


@pytest.mark.parametrize("pruner", ["none", "promoting", "median"])
def test_a_trial_whose_accuracy_is_never_a_number_fails_alone(tmp_path: Path, pruner: Pruner) -> None:
    def body(task: Task) -> Iterator[Message]:
        for epoch in range(1, task.epochs + 1):
            value = math.nan if task.trial % 2 == 0 else 0.4
            yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value))
        yield TrialEnd(attempt=task.attempt, state="ended")

    space = replace(SPACE, baselines=(), pruner=pruner, max_epochs=2)
    desk = open_desk(tmp_path, space, spec(trials=14, max_epochs=2))
    InlineRunner().run(desk.director, body)
    desk.director.leave()
    odd = [trial for trial in desk.director.history.trials.values() if trial.number % 2 == 0]
    assert all(trial.state in ("failed", "pruned") and "number" in trial.reason for trial in odd)
    assert any(trial.state == "done" for trial in desk.director.history.trials.values())
    if pruner != "promoting":
        assert {trial.reason for trial in odd} == {"val_accuracy is not a number in any of 2 epochs"}
        assert all(trial.end and trial.end.diverged and trial.end.told == "worst" for trial in odd)
    Study(tmp_path / "again.log", space, spec().seed, desk.events()).propose(14)


def test_a_used_up_time_budget_stops_the_sweep_resumable(sweep: Sweep) -> None:
    asked: dict[str, Any] = {"trials": 6, "epochs": 4, "body": slow_body}
    stopped = sweep(time_budget_seconds=0.1, **asked)
    assert stopped.exit_code == 0
    assert stopped.stop_reason is not None
    assert "time budget" in stopped.stop_reason
    assert len(stopped) < 6
    assert stopped.history.count("running") == 0
    assert stopped.history.stopped is not None
    assert stopped.history.finished is None
    kept = outcome(stopped.folder.journal)
    resumed = sweep(resume=True, **asked)
    assert resumed.history.finished is not None
    assert [trial.number for trial in resumed] == list(range(6))
    for number, trial in outcome(resumed.folder.journal).items():
        known = kept[number]["epochs"] if number in kept else []
        assert trial["epochs"][: len(known)] == known
    assert outcome(resumed.folder.journal) == outcome(sweep(name="undisturbed", **asked).folder.journal)


def test_a_used_up_time_budget_pauses_what_runs(sweep: Sweep) -> None:
    stopped = sweep(time_budget_seconds=0.5, trials=2, epochs=200, body=slow_body)
    last = stopped[-1]
    assert last.end is None
    assert (last.state, last.reason, last.is_over) == ("paused", "a budget is used up", False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_sweep_resumable(
    sweep: Sweep, number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(task: Task) -> Iterator[Message]:
        for message in good_body(task):
            yield message
            if task.trial == 1 and isinstance(message, EpochReport) and message.epoch == 1:
                os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    stopped = sweep(trials=2, epochs=3, body=body)
    assert stopped.exit_code == code
    assert number.name in (stopped.stop_reason or "")
    assert [trial.state for trial in stopped] == ["done", "stopped"]
    assert stopped[1].last_epoch == 2, "it leaves at its next report"
    assert signal.getsignal(number) == handler
    assert "a second signal stops at once" in capsys.readouterr().err
    assert outcome(sweep(resume=True, trials=2, epochs=3).folder.journal) == outcome(
        sweep(name="undisturbed", trials=2, epochs=3).folder.journal
    )


def test_a_signal_that_is_ignored_by_nohup_stays_ignored(sweep: Sweep) -> None:
    def body(task: Task) -> Iterator[Message]:
        os.kill(os.getpid(), signal.SIGHUP)
        yield from good_body(task)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert sweep(trials=1, epochs=2, body=body).exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("diverged", [True, False])
def test_resuming_a_finished_sweep_exits_0_whatever_became_of_its_trials(sweep: Sweep, diverged: bool) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield TrialEnd(attempt=task.attempt, state="failed", diverged=diverged, reason="out of luck")

    ended = sweep(trials=2, body=body)
    assert ended.exit_code == 1
    before = ended.folder.journal.read_bytes()
    assert sweep(trials=2, body=body, resume=True).exit_code == 0
    assert ended.folder.journal.read_bytes() == before
    assert sweep(trials=3, body=body, resume=True).exit_code == 1


@pytest.mark.parametrize("interrupt", [signal.default_int_handler, signal.SIG_IGN], ids=["", "in the background"])
def test_a_long_epoch_is_left_after_the_grace(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, interrupt: signal.Handlers
) -> None:
    """A shell that starts a job in the background has it ignore SIGINT."""

    def body(task: Task) -> Iterator[Message]:
        yield next(iter(good_body(task)))
        os.kill(os.getpid(), signal.SIGTERM)
        Future[None]().result(30)  # as a trial waits for the thread that trains the epoch
        raise AssertionError("not reached")

    monkeypatch.setattr("sweeps.driver.runner.GRACE_SECONDS", 0.3)
    began, before = time.monotonic(), signal.signal(signal.SIGINT, interrupt)
    try:
        stopped = sweep(trials=2, epochs=3, body=body)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 20
    assert (stopped.exit_code, stopped[0].state, stopped[0].last_epoch) == (143, "stopped", 1)


def test_a_second_signal_leaves_at_once(sweep: Sweep) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield from ()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    stopped = sweep(trials=2, epochs=2, body=body)
    assert stopped.exit_code == 130
    assert stopped[0].state == "stopped"


def test_a_second_signal_while_the_last_words_are_sent_leaves_at_once(
    sweep: Sweep,
) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield from ()
        os.kill(os.getpid(), signal.SIGINT)

    class Slow(NoTracker):
        def close(self, seconds_left: Callable[[], float]) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not reached")

    assert sweep(trials=2, epochs=2, body=body, tracker=Slow()).exit_code == 130


def test_further_signals_do_not_keep_the_end_from_the_journal(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield from ()
        os.kill(os.getpid(), signal.SIGINT)

    def leave(director: Director) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        whole(director)

    whole = Director.leave
    monkeypatch.setattr(Director, "leave", leave)
    stopped = sweep(trials=2, epochs=2, body=body)
    assert stopped.exit_code == 130
    *_, end, last = read(stopped.folder.journal)
    assert isinstance(end, TrialEnded)
    assert (end.state, end.final) == ("stopped", False)
    assert isinstance(last, DriverStopped)
    assert last.reason == "stopped by SIGINT"


def test_a_diverged_trial_has_failed_and_is_a_result(sweep: Sweep) -> None:
    def body(task: Task) -> Iterator[Message]:
        if task.trial == 0:
            yield report(task, 1)
            yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason="train_loss is nan")
        else:
            yield from good_body(task)

    result = sweep(trials=2, epochs=2, body=body)
    assert result[0].end is not None
    assert (result[0].state, result[0].end.reason, result[0].end.diverged) == ("failed", "train_loss is nan", True)
    assert result[0].attempts == [], "another attempt would diverge again"
    assert (result.faults, result.exit_code) == ((), 0)


def test_a_fault_of_a_trial_is_exit_code_one(sweep: Sweep) -> None:
    def body(task: Task) -> Iterator[Message]:
        if task.trial == 0:
            yield TrialEnd(attempt=task.attempt, state="failed", reason="KeyError: 'x'")
        else:
            yield from good_body(task)

    result = sweep(trials=2, epochs=2, body=body)
    assert (result[0].state, result[1].state) == ("failed", "done")
    assert (result.faults, result.exit_code) == (("trial 0: KeyError: 'x'",), 1)


def test_a_worker_that_always_dies_is_exit_code_one(sweep: Sweep) -> None:
    def body(task: Task) -> Iterator[Message]:
        if task.trial == 1:
            raise RuntimeError("segmentation fault")
        yield from good_body(task)

    assert sweep(trials=2, epochs=2, body=body).exit_code == 1


def test_a_sweep_without_a_done_trial_is_exit_code_one(sweep: Sweep) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason="nan")

    assert sweep(trials=2, epochs=2, body=body).exit_code == 1


def test_a_finished_sweep_is_left_as_it_is(sweep: Sweep) -> None:
    first = sweep(trials=3, epochs=2)
    before = first.folder.journal.read_bytes()
    again = sweep(trials=3, epochs=2, resume=True)
    assert again.exit_code == 0
    assert again.folder.journal.read_bytes() == before


def test_a_finished_sweep_can_be_extended(sweep: Sweep) -> None:
    # The reports' share of the budget is the same: it is all of it at 1 and at 2 trials.
    sweep(trials=1, epochs=2)
    more = sweep(trials=2, epochs=2, resume=True)
    assert [trial.started.baseline for trial in more] == ["first report", "second report"]
    assert more.history.finished is not None
    assert more.history.finished.done == 2


def test_resuming_an_absent_sweep_starts_it(sweep: Sweep) -> None:
    assert len(sweep(trials=2, epochs=1, resume=True)) == 2


def test_the_result_is_a_sequence_of_the_trials(sweep: Sweep) -> None:
    result = sweep(trials=3, epochs=1)
    assert [trial.number for trial in result] == [0, 1, 2]
    assert result[-1].number == 2
    assert [trial.number for trial in result[:2]] == [0, 1]
    started = [event for event in read(result.folder.journal) if isinstance(event, TrialStarted)]
    assert [trial.started for trial in result] == started
