"""How well sweeps share slots, in a clock of its own, and what the division and a pause cost; printed as a table.

    python -m tests.benchmarks.sharing

The pause wants an idle machine.
"""

from __future__ import annotations

import heapq
import platform
import random
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import cast

from rich.console import Console
from rich.table import Table

from fer_data import DataOptions, prepare
from fer_models import CompactResNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.sharing.division import Capacity, Claim, divide, entitled
from sweeps.sharing.gpu_places import GpuPlaces
from sweeps.sharing.share import QUANTUM_SECONDS, SharedSlots
from sweeps.trial.messages import EpochReport, Message, Task
from sweeps.trial.run_trial import run_trial
from tests.benchmarks.rows import spread


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
    """Trials of equal epochs without an end; counts what it had. `places` are those of a sweep on GPUs."""

    name: str
    epoch_seconds: float
    wants: int = 1000
    places: GpuPlaces | None = None
    gpus: float = 0.0
    """Of each trial."""
    out: list[int] = field(default_factory=list)
    moving: set[int] = field(default_factory=set)
    slots: int | None = 0
    had: float = 0.0
    first: float | None = None

    @property
    def demand(self) -> int:
        return self.wants

    def least_promising(self) -> list[int]:
        return self.out[::-1]

    def limit(self, slots: int | None, by: str) -> None:
        self.slots = slots

    def move(self, number: int) -> None:
        self.moving.add(number)

    def starts(self, trial: int) -> bool:
        """Whether a trial can start now."""
        if self.places and self.places.take(trial, self.gpus) is None:
            return False
        self.out.append(trial)
        return True

    def leaves(self, trial: int) -> None:
        """Free the slot of a trial."""
        self.out.remove(trial)
        self.moving.discard(trial)
        if self.places:
            self.places.release(trial)


class Hall:
    """Sweeps on so many logical cores, and GPUs, in a clock of its own; each looks once a second and at each report."""

    def __init__(self, cores: int, seed: int = 0, gpus: int = 0) -> None:
        self.now, self.cores, self.board = 0.0, cores, Board()
        self.gpus = tuple(f"GPU-{number}" for number in range(gpus))
        self.busy = self.overfull = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = 0
        self._random = random.Random(seed)
        self.sweeps: dict[str, tuple[FakeSweep, SharedSlots]] = {}

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, self._turn, act))
        self._turn += 1

    def come(self, sweep: FakeSweep, **more: object) -> None:
        sweep.places = GpuPlaces(self.gpus) if sweep.gpus else None
        own = {"cores": 0.1, "gpus": sweep.gpus, "all_gpus": self.gpus} if sweep.gpus else {}
        every = {"id": sweep.name, "sweep": sweep.name, "since": self.now, "all_cores": frozenset(range(self.cores))}
        claim = Claim.model_validate(every | own | more)
        most = self.cores if not sweep.gpus else 100
        share = SharedSlots(self.board.store(), claim, most, clock=lambda: self.now, places=sweep.places)
        self.sweeps[sweep.name] = sweep, share
        self.look(sweep.name)

    def go(self, name: str) -> None:
        sweep, share = self.sweeps.pop(name)
        for trial in list(sweep.out):
            sweep.leaves(trial)
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
            if not sweep.starts(self._turn):
                return
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
        if trial in sweep.moving or (sweep.slots is not None and len(sweep.out) - len(sweep.moving) > sweep.slots):
            sweep.leaves(trial)
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
            self._check(used)
            self.busy += used * (when - self.now)
            self.now = when
            act()

    def _check(self, used: int) -> None:
        on_gpus = [sweep.places.used for sweep, _ in self.sweeps.values() if sweep.places]
        for gpu in self.gpus:
            assert sum(one[gpu] for one in on_gpus) <= 1 + 1e-6, f"a share of {gpu} was handed out twice"
        assert self.gpus or used <= self.cores, "a slot was handed out twice"


@dataclass(frozen=True)
class Line:
    """One measured law."""

    law: str
    target: str
    measured: str


def two_to_one(seconds: float = 1200.0, seed: int = 0) -> tuple[float, float]:
    """The share of a sweep of weight 2 beside one of weight 1 on 4 slots, and the share of slots that were busy."""
    hall = Hall(4, seed)
    two, one = FakeSweep("two", 7), FakeSweep("one", 11)
    hall.come(two, weight=2.0)
    hall.come(one)
    hall.run_until(seconds)
    return two.had / (two.had + one.had), hall.busy / (4 * seconds)


def twenty_over_64(seconds: float = 1500.0, seed: int = 3) -> tuple[float, float]:
    """The largest error of 20 sweeps' shares, relative to what their weights give, and the share of busy slots."""
    hall, rng = Hall(64, seed), random.Random(seed)
    weights = {f"sweep-{number}": 1.0 + number % 4 for number in range(20)}
    sweeps = {name: FakeSweep(name, rng.uniform(5, 20)) for name in weights}
    for name, sweep in sweeps.items():
        hall.come(sweep, weight=weights[name])
    hall.run_until(seconds)
    whole = sum(sweep.had for sweep in sweeps.values())
    due = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    return max(abs(sweep.had / whole / due[name] - 1) for name, sweep in sweeps.items()), hall.busy / (64 * seconds)


def urgent_start(seed: int = 0) -> float:
    """Seconds until an urgent sweep starts on 4 slots that another fills; an epoch takes 24 to 36 s."""
    hall = Hall(4, seed)
    urgent = FakeSweep("urgent", 30)
    hall.come(FakeSweep("usual", 30))
    hall.run_until(100)
    hall.at(100, lambda: hall.come(urgent, priority=5))
    hall.run_until(200)
    assert urgent.first is not None
    return urgent.first - 100


def division_seconds(repeats: int = 200) -> float:
    """What one look costs with 20 claims on 64 cores."""
    claims = [Claim(id=str(number), sweep="x", wanted=64, weight=1 + number % 3, since=number) for number in range(20)]
    began = time.process_time()
    for _ in range(repeats):
        divide(claims, Capacity(64), QUANTUM_SECONDS)
        entitled(claims, Capacity(64))
    return (time.process_time() - began) / repeats


def pause_and_thaw_seconds(repeats: int = 8) -> list[float]:
    """What each pause of a trial of the compact ResNet costs its slot beside the epochs, in a warm worker.

    From the driver's answer to a report until the worker is free, and from the new attempt's start to its first
    report, without the seconds of that epoch.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = DataOptions(limit_train=256)
        config = TrialConfig(net=CompactResNetConfig(), recipe=Recipe(batch_size=128, lr=0.01))
        task = Task(trial=0, attempt=0, folder=folder, config=config, seed=0, epochs=repeats + 2, data=data,
                    faces=str(prepare(data)), gpu_share=0)  # fmt: skip
        seconds: list[float] = []
        while len(task.recorded) <= repeats:
            began = time.perf_counter()
            body = cast(Generator[Message], run_trial(task))
            report = next(one for one in body if isinstance(one, EpochReport) and one.epoch > len(task.recorded))
            thawed = time.perf_counter() - began - report.metrics["epoch_seconds"]
            time.sleep(0.01)  # until the driver has answered
            began = time.perf_counter()
            body.close()
            seconds.append(thawed + time.perf_counter() - began)
            task = task.model_copy(update={"attempt": task.attempt + 1, "recorded": (*task.recorded, report)})
    return seconds[1:]  # the first attempt has to import torch and to make the net


def lines(seeds: int = 5) -> Iterator[Line]:
    """Every law, over several seeds: the worst of them."""
    shares = [two_to_one(seed=seed) for seed in range(seeds)]
    yield Line("weights 2:1 on 4 slots, 20 min: error of the share", "at most 5 %",
               f"{max(abs(share * 1.5 - 1) for share, _ in shares):.1%}")  # fmt: skip
    yield Line("  slots busy", "at least 95 %", f"{min(busy for _, busy in shares):.1%}")
    yield Line("an urgent sweep starts after", "one report: 36 s", f"{max(map(urgent_start, range(seeds))):.0f} s")
    error, busy = twenty_over_64()
    yield Line("20 sweeps, weights 1 to 4, 64 slots, 25 min: largest error", "at most 5 %", f"{error:.1%}")
    yield Line("  slots busy", "at least 95 %", f"{busy:.1%}")
    yield Line("one look at 20 claims", "", f"{1000 * division_seconds():.2f} ms")
    paused = pause_and_thaw_seconds()
    yield Line(f"pause and thaw of compact_resnet, n = {len(paused)}, on {platform.processor() or platform.machine()}",
               "at most 0.5 s", f"{spread(paused, 2)} s")  # fmt: skip


def main() -> None:
    """Print the table."""
    table = Table(title="sharing of slots, simulated clock; the worst of 5 seeds", header_style="bold")
    for heading in ("law", "target", "measured"):
        table.add_column(heading)
    for line in lines():
        table.add_row(line.law, line.target, line.measured)
    Console().print(table)


if __name__ == "__main__":
    main()
