"""The runner of the scale benchmark obeys the contract that the real ones obey."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
import pytest

from sweeps.driver.runner import InlineRunner, TrialBody
from sweeps.search.study import Study
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.benchmarks.simulated import SPACE, Call, SimulatedRunner, learning
from tests.journal_laws import check_trials
from tests.sweeps.fake_trials import Desk, metrics, open_desk, outcome, scripted_body, spec
from tracking.record.events import EpochDone, Event, TrialEnded, Verdict
from tracking.record.history import SweepHistory

TRIALS, SLOTS = 200, 50
QUICK = replace(SPACE, first_rung_epochs=1)


def desk(root: Path, trials: int = TRIALS) -> Desk:
    return open_desk(root, QUICK, spec(trials=trials, max_epochs=4))


def no_time() -> float:
    return 0.0


class Counted:
    """A body that knows how many of it were open at once."""

    def __init__(self, body: TrialBody) -> None:
        self.body, self.open, self.most = body, 0, 0

    def __call__(self, task: Task) -> Iterator[Message]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield from self.body(task)
        finally:
            self.open -= 1


def check_laws(events: list[Event]) -> None:
    check_trials(events)
    for end in (event for event in events if isinstance(event, TrialEnded) and event.final):
        mine = [event for event in events if getattr(event, "trial", None) == end.trial]
        verdicts = [event for event in mine if isinstance(event, Verdict)]
        assert end.state == ("pruned" if verdicts else "done")
        assert not verdicts or sum(isinstance(event, EpochDone) for event in mine) == verdicts[0].epoch


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Counted]:
    """A sweep of 200 trials on 50 logical GPUs, whose workers die in one epoch of fifty."""
    held = desk(tmp_path_factory.mktemp("simulated") / "night")
    body = Counted(partial(learning, deaths=0.02))
    SimulatedRunner(SLOTS, clock=no_time).run(held.director, body)
    return held, body


def test_every_law_of_the_journal_holds(finished: tuple[Desk, Counted]) -> None:
    held, body = finished
    events = held.events()
    check_laws(events)
    final = [event.trial for event in events if isinstance(event, TrialEnded) and event.final]
    assert sorted(final) == list(range(TRIALS))
    kinds = Counter(event.event for event in events)
    assert kinds["attempt"] > 0
    assert kinds["verdict"] > TRIALS / 3
    assert held.director.exhausted
    assert not held.director.busy
    assert (body.most, body.open) == (SLOTS, 0)


def test_the_study_laid_anew_is_the_one_that_grew(finished: tuple[Desk, Counted], tmp_path: Path) -> None:
    held, _ = finished

    def trials(log: Path) -> list[tuple[object, ...]]:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(log)))
        study = optuna.load_study(study_name=QUICK.name, storage=storage)
        return [(t.state, t.params, t.intermediate_values, t.values) for t in study.trials]

    Study(tmp_path / "study.log", QUICK, spec().seed, held.events())
    assert trials(tmp_path / "study.log") == trials(held.folder.study_log)


def test_one_slot_is_the_inline_runner(tmp_path: Path) -> None:
    simulated, inline = desk(tmp_path / "simulated", 12), desk(tmp_path / "inline", 12)
    SimulatedRunner(1, clock=no_time).run(simulated.director, learning)
    InlineRunner().run(inline.director, learning)
    assert outcome(simulated.folder.journal) == outcome(inline.folder.journal)


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    first = desk(tmp_path / "night", 30)

    def stop_soon(call: Call) -> None:
        if call.kind == "report" and call.trials > 15:
            first.director.request_stop("enough")

    SimulatedRunner(10, clock=no_time, observe=stop_soon).run(first.director, learning)
    first.journal.close()
    history = SweepHistory.load(first.folder.journal)
    assert {trial.state for trial in history.unfinished} == {"stopped"}
    assert 0 < len(history.unfinished) <= 10
    second = desk(tmp_path / "night", 30)
    SimulatedRunner(10, clock=no_time).run(second.director, learning)
    check_laws(second.events())
    assert second.director.history.unfinished == []
    assert len(second.director.history.trials) == 30


def test_who_leaves_without_a_word_comes_back(tmp_path: Path) -> None:
    def silent_at_first(task: Task) -> Iterator[Message]:
        if task.attempt > 0:
            yield EpochReport(attempt=task.attempt, epoch=1, metrics=metrics(0.5))
            yield TrialEnd(attempt=task.attempt, state="ended")

    held = open_desk(tmp_path / "night", QUICK, spec(trials=1, max_epochs=1))
    SimulatedRunner(3, clock=no_time).run(held.director, silent_at_first)
    assert held.story() == [("trial", 0), ("attempt", 0, 1), ("epoch", 0, 1), ("end", 0, "done")]


def test_the_clock_by_hand(tmp_path: Path) -> None:
    """Each turn of the driver takes a second, an epoch two (as `metrics` says)."""
    held = open_desk(tmp_path / "night", QUICK, spec(trials=2, max_epochs=1))
    calls: list[Call] = []
    runner = SimulatedRunner(2, clock=itertools.count().__next__, observe=calls.append)
    runner.run(held.director, scripted_body({0: [0.5], 1: [0.5]}))
    # Asks until 1 and 2 s; epochs until 3 and 4 s; reports until 4 and 5 s; after each, in turn, an end and an ask.
    assert [call.kind for call in calls] == ["ask", "ask", "report", "report", "end", "end", "ask", "ask"]
    assert [call.waited for call in calls] == [1, 2, 1, 1, 2, 2, 2, 2]
    assert (runner.now, runner.trained_seconds) == (9, 4)
