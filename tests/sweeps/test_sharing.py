"""Several sweeps on one machine: what each may use, in a clock of the test, in threads and in processes."""

from __future__ import annotations

import heapq
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from sweeps.sharing.division import Claim
from sweeps.sharing.files import FileClaims
from sweeps.sharing.share import SharedSlots


class Board:
    """Claims in memory."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}

    def store(self) -> BoardStore:
        return BoardStore(self)


class BoardStore:
    def __init__(self, board: Board) -> None:
        self._board, self._own = board, ""

    def put(self, claim: Claim) -> None:
        self._own = claim.id
        self._board.claims[claim.id] = claim

    def all(self) -> list[Claim]:
        return list(self._board.claims.values())

    def close(self) -> None:
        self._board.claims.pop(self._own, None)


@dataclass
class FakeSweep:
    """Trials of equal epochs without an end; counts what it had."""

    name: str
    epoch_seconds: float
    wants: int = 1000
    out: list[int] = field(default_factory=list)
    slots: int | None = 0
    had: float = 0.0
    first: float | None = None

    @property
    def demand(self) -> int:
        return self.wants

    def limit(self, slots: int | None, by: str) -> None:
        self.slots = slots


class Hall:
    """Sweeps on so many logical cores, in a clock of its own; each looks once a second and at each report."""

    def __init__(self, cores: int, seed: int = 0) -> None:
        self.now, self.cores, self.board = 0.0, cores, Board()
        self.busy = self.overfull = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = 0
        self._random = random.Random(seed)
        self.sweeps: dict[str, tuple[FakeSweep, SharedSlots]] = {}

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, self._turn, act))
        self._turn += 1

    def come(self, sweep: FakeSweep, **more: object) -> None:
        claim = Claim.model_validate(
            {"id": sweep.name, "sweep": sweep.name, "since": self.now, "all_cores": frozenset(range(self.cores))} | more
        )
        share = SharedSlots(self.board.store(), claim, self.cores, clock=lambda: self.now)
        self.sweeps[sweep.name] = sweep, share
        self.look(sweep.name)

    def go(self, name: str) -> None:
        sweep, share = self.sweeps.pop(name)
        sweep.out.clear()
        share.close()

    def look(self, name: str) -> None:
        if name not in self.sweeps:
            return
        self._use(name)
        self.at(self.now + 1, lambda: self.look(name))

    def _use(self, name: str) -> None:
        sweep, share = self.sweeps[name]
        share(sweep)
        while sweep.slots is not None and len(sweep.out) < min(sweep.slots, sweep.wants):
            sweep.out.append(self._turn)
            sweep.first = self.now if sweep.first is None else sweep.first
            self._train(name, self._turn)

    def _train(self, name: str, trial: int) -> None:
        seconds = self.sweeps[name][0].epoch_seconds * self._random.uniform(0.8, 1.2)
        self.at(self.now + seconds, lambda: self._report(name, trial))

    def _report(self, name: str, trial: int) -> None:
        if name not in self.sweeps or trial not in self.sweeps[name][0].out:
            return
        sweep, share = self.sweeps[name]
        share(sweep)
        if sweep.slots is not None and len(sweep.out) > sweep.slots:
            sweep.out.remove(trial)
        else:
            self._train(name, trial)
        self._use(name)

    def run_until(self, end: float) -> None:
        while self._queue and self._queue[0][0] <= end:
            when, _, act = heapq.heappop(self._queue)
            used = 0
            for sweep, _ in self.sweeps.values():
                sweep.had += len(sweep.out) * (when - self.now)
                used += len(sweep.out)
            assert used <= self.cores, "a slot was handed out twice"
            self.busy += used * (when - self.now)
            self.now = when
            act()


def test_two_to_one_on_four_slots() -> None:
    hall = Hall(4)
    two, one = FakeSweep("two", 7), FakeSweep("one", 11)
    hall.come(two, weight=2.0)
    hall.come(one)
    hall.run_until(1200)
    assert two.had / (two.had + one.had) == pytest.approx(2 / 3, rel=0.05)
    assert hall.busy >= 0.95 * 4 * 1200


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


def test_twenty_sweeps_over_64_slots() -> None:
    hall, rng = Hall(64), random.Random(3)
    weights = {f"sweep-{number}": 1.0 + number % 4 for number in range(20)}
    sweeps = {name: FakeSweep(name, rng.uniform(5, 20)) for name in weights}
    for name, sweep in sweeps.items():
        hall.come(sweep, weight=weights[name])
    hall.run_until(900)
    whole = sum(sweep.had for sweep in sweeps.values())
    for name, sweep in sweeps.items():
        assert sweep.had / whole == pytest.approx(weights[name] / sum(weights.values()), rel=0.05)
    assert hall.busy >= 0.95 * 64 * 900


@settings(max_examples=40, deadline=None)
@given(
    some.lists(
        some.tuples(some.sampled_from("abcdef"), some.floats(0, 60), some.integers(-1, 1), some.floats(0.2, 5)),
        min_size=2,
        max_size=12,
    ),
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
    hall.run_until(120)
    assert not hall.sweeps or sum(len(sweep.out) for sweep, _ in hall.sweeps.values()) == cores


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
        share.close()

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


DRIVER = """
import sys, time
from pathlib import Path
from sweeps.sharing.division import Claim
from sweeps.sharing.files import FileClaims
from sweeps.sharing.share import SharedSlots
claim = Claim(id=sys.argv[2], sweep=sys.argv[2], owner="anna", all_cores=frozenset(range(2)))
share = SharedSlots(FileClaims(Path(sys.argv[1])), claim, 2)
print(share.slots_for(0, 2), flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", DRIVER, str(tmp_path / "slots"), "night"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
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
        "one comes free at the next report of a trial"
    ]
    other_driver.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    while share.slots_for(0, 2) < 2:
        assert time.monotonic() - killed < 1.5
        time.sleep(0.02)
    assert [path.name for path in (tmp_path / "slots").glob("night*")] == []
    share.close()
    assert list((tmp_path / "slots").iterdir()) == []
