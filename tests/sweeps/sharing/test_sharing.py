"""Several sweeps on one machine: what each may use, in a clock of the test, in threads and in processes."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from sweeps.cli.main import main
from sweeps.cli.overview import all_sweeps
from sweeps.driver.runner import InlineRunner, QueuedRunner
from sweeps.planning.resources import usable_cpus
from sweeps.sharing.division import Claim
from sweeps.sharing.files import FileClaims
from sweeps.sharing.share import SharedSlots
from sweeps.sweep import SweepResult
from sweeps.trial.messages import Message, Task
from tests import ROOT
from tests.benchmarks.sharing import FakeSweep, Hall, twenty_over_64, two_to_one
from tests.sweeps.fake_trials import SPACE, good_body, open_desk, spec
from tests.sweeps.sharing.visits import VISITS
from tracking.record.events import TrialPaused
from tracking.record.journal import read

pytestmark = pytest.mark.timeout(120)


def test_two_to_one_on_four_slots() -> None:
    share, busy = two_to_one()
    assert share == pytest.approx(2 / 3, rel=0.05)
    assert busy >= 0.95


def test_an_urgent_sweep_starts_within_one_report_and_gives_everything_back() -> None:
    hall = Hall(4)
    usual, urgent = FakeSweep("usual", 30), FakeSweep("urgent", 30)
    hall.come(usual)
    hall.run_until(100)
    hall.at(100, lambda: hall.come(urgent, priority=5))
    hall.run_until(100 + 36 + 2)
    assert urgent.first is not None
    assert len(urgent.out) == 4
    assert usual.out == []
    hall.at(300, lambda: hall.go("urgent"))
    hall.run_until(302)
    assert len(usual.out) == 4


def test_what_one_cannot_use_goes_to_the_others() -> None:
    hall = Hall(8)
    small, large = FakeSweep("small", 5, wants=1), FakeSweep("large", 5)
    hall.come(large)
    hall.come(small, weight=7.0)
    hall.run_until(20)
    assert (len(small.out), len(large.out)) == (1, 7)


@pytest.mark.slow
def test_twenty_sweeps_over_64_slots() -> None:
    error, busy = twenty_over_64()
    assert error < 0.05
    assert busy >= 0.95


@settings(max_examples=40, deadline=None)
@given(
    VISITS,
    some.integers(1, 6),
    some.integers(0, 99),
)
def test_sweeps_that_come_and_go_never_use_a_slot_twice(
    visits: list[tuple[str, float, int, float]], cores: int, seed: int
) -> None:
    """`run_until` asserts it. Whoever comes leaves at the next visit of its name."""
    hall = Hall(cores, seed)

    def visit(name: str, priority: int, weight: float) -> None:
        if name in hall.sweeps:
            hall.go(name)
        else:
            hall.come(FakeSweep(name, 3.0), priority=priority, weight=weight)

    for name, when, priority, weight in visits:
        hall.at(when, lambda name=name, priority=priority, weight=weight: visit(name, priority, weight))  # type: ignore[misc]
    in_use = []
    for eighth in range(16):  # a slot that changes hands is free until its next holder looks
        hall.run_until(120 + eighth / 8)
        in_use.append(sum(len(sweep.out) for sweep, _ in hall.sweeps.values()))
    assert not hall.sweeps or max(in_use) == cores


def test_claims_that_are_raised_at_once_never_come_to_more_than_there_is(tmp_path: Path) -> None:
    """Threads that wait for nobody: what they say they use is counted under a lock."""
    cores, used, lock, faults = 3, [0], threading.Lock(), []
    end = time.monotonic() + 2

    def drive(number: int) -> None:
        rng, mine = random.Random(number), 0
        claim = Claim(id=str(number), sweep=str(number), all_cores=frozenset(range(cores)))
        share = SharedSlots(FileClaims(tmp_path), claim, cores, look_seconds=0, quantum_seconds=0.01)
        while time.monotonic() < end:
            allowed = share.slots_for(mine, rng.randint(0, cores))
            with lock:
                used[0] += max(allowed, 0) - mine if allowed > mine else 0
                mine = max(allowed, mine)
                faults.extend([used[0]] if used[0] > cores else [])
            if mine and rng.random() < 0.5:
                with lock:
                    mine -= 1
                    used[0] -= 1
        with lock:
            used[0] -= mine  # before the claim goes, as a driver ends its trials before it leaves
        share.close()

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_queued_sweep_whose_workers_start_leaves_its_slot_to_a_more_urgent_one(tmp_path: Path) -> None:
    def share_of(name: str, priority: int = 0) -> SharedSlots:
        claim = Claim(id=name, sweep=name, priority=priority, all_cores=frozenset([0]))
        return SharedSlots(FileClaims(tmp_path / "ledger"), claim, 1, look_seconds=0)

    usual = share_of("usual")
    held = open_desk(tmp_path / "usual", SPACE, spec(trials=1), attendants=(usual,))

    def start() -> InlineRunner:
        urgent, end = share_of("urgent", priority=5), time.monotonic() + 10
        while not urgent.slots_for(0, 1):
            assert time.monotonic() < end, "it waits for the workers of the other sweep"
            time.sleep(0.05)
        assert usual.waits_for.startswith("sweep urgent")
        urgent.close()
        return InlineRunner()

    QueuedRunner(start).run(held.director, good_body)
    assert held.director.history.trials[0].state == "done"


DRIVER = """
import sys, time
from pathlib import Path
from sweeps.sharing.division import Claim
from sweeps.sharing.files import FileClaims
from sweeps.sharing.share import SharedSlots
from tests.benchmarks.sharing import FakeSweep, Hall, twenty_over_64, two_to_one
claim = Claim(id=sys.argv[2], sweep=sys.argv[2], owner="anna", all_cores=frozenset(range(2)))
share = SharedSlots(FileClaims(Path(sys.argv[1])), claim, 2)
print(share.slots_for(0, 2), flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", DRIVER, str(tmp_path / "slots"), "night"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_killed_driver_gives_its_share_back_within_a_second(
    other_driver: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert other_driver.stdout
    assert other_driver.stdout.readline() == "2\n"
    said: list[str] = []
    claim = Claim(id="day", sweep="day", all_cores=frozenset(range(2)))
    share = SharedSlots(FileClaims(tmp_path / "slots"), claim, 2, say=said.append)
    assert share.slots_for(0, 2) == 0
    assert said == [
        "waiting for a slot: in use by sweep night of anna (priority 0, 2 slots); "
        "one becomes free at the next report of a trial"
    ]
    other_driver.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    while share.slots_for(0, 2) < 2:
        assert time.monotonic() - killed < 5
        time.sleep(0.02)
    assert [path.name for path in (tmp_path / "slots").glob("night*")] == []
    share.close()
    assert list((tmp_path / "slots").iterdir()) == []


def slow_body(task: Task) -> Iterator[Message]:
    for message in good_body(task):
        yield message
        time.sleep(0.1)


def test_an_urgent_sweep_takes_the_slot_at_the_next_report_and_gives_it_back(
    sweep: Callable[..., SweepResult], out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two real drivers, in two threads; each trial wants all cores."""
    monkeypatch.setenv("FER_SLOTS", str(tmp_path / "ledger"))
    more = {"cpus_per_trial": usable_cpus(), "body": slow_body, "trials": 4, "epochs": 8}
    usual: list[SweepResult] = []
    thread = threading.Thread(target=lambda: usual.append(sweep(name="usual", **more)))
    thread.start()
    while not (out / "usual/journal.jsonl").is_file() or b'"epoch":1' not in (out / "usual/journal.jsonl").read_bytes():
        time.sleep(0.02)
    urgent = sweep(name="urgent", priority=5, **more)
    thread.join()
    assert urgent.history.finished
    assert usual[0].history.finished
    pauses = [event for event in read(out / "usual/journal.jsonl") if isinstance(event, TrialPaused)]
    assert {event.reason for event in pauses} == {"share"}
    inside = [urgent.history.trials[0].started.time_ms, urgent.history.finished.time_ms]
    epochs = [epoch.time_ms for trial in usual[0] for epoch in trial.epochs]
    assert not [when for when in epochs if inside[0] < when < inside[1] - 50]
    alone = sweep(name="alone", **more | {"body": good_body})
    assert bits(usual[0]) == bits(alone)
    assert list((tmp_path / "ledger").iterdir()) == []


def bits(result: SweepResult) -> list[tuple[str, list[tuple[int, float]]]]:
    return [
        (trial.started.config_id, [(one.epoch, one.metrics["val_accuracy"]) for one in trial.epochs])
        for trial in result
    ]


def test_a_queued_sweep_is_listed_as_waiting_and_starts_when_a_slot_is_free(
    queued: tuple[SharedSlots, Future[int]], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, code = queued
    (row,) = all_sweeps(out)
    assert row.state == "waiting"
    assert re.fullmatch(
        r"queued since 20[-\d]+ [:\d]+ for sweep first of anna \(priority 9, 1 slot\); on \S+, pid \d+", row.why
    )
    assert main(["status", "night", "--out", str(out)]) == 0
    assert "sweep night: queued since " in capsys.readouterr().out
    assert main(["set", "night", "priority=3", "--out", str(out)]) == 0
    first.close()
    assert code.result() == 0
    (row,) = all_sweeps(out)
    assert (row.state, row.why, row.digest.priority) == ("finished", "", 3)


def test_stop_takes_a_sweep_out_of_the_queue(
    queued: tuple[SharedSlots, Future[int]], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stop", "night", "--out", str(out)]) == 0
    assert "night: stops now; it can be resumed" in capsys.readouterr().out
    assert queued[1].result() == 0
    (row,) = all_sweeps(out)
    assert (row.state, row.why, row.digest.trials) == ("stopped", "", {})
