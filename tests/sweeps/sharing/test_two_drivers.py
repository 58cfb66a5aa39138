"""Two real drivers on one real Ray head of two cores: they share its slots, and one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import PATIENCE, environment, ray_head, wait_for
from tracking.record.events import AttemptStarted, Event, TrialEnded, TrialPaused, TrialStarted, now_ms
from tracking.record.history import SweepHistory
from tracking.record.journal import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SLOTS = 2
BACK_SECONDS = 10
EPOCHS = 100  # a trial must outlast the start of the other sweep's driver, also on a quick machine
OPTIONS = ["--limit-train", "100", "--set", "batch_size=50", "--set", "lr=0.001", "--baselines", "none", "--pruner", "none", "--device", "cpu",
           "--cpus-per-trial", "1"]  # fmt: skip


class Sweep:
    """A sweep that `python -m sweeps.run` drives in a process of its own."""

    def __init__(self, name: str, address: str, folder: Path, trials: int, epochs: int) -> None:
        self._name, self._address, self._folder = name, address, folder
        self.journal = folder / "runs" / name / "journal.jsonl"
        self._drive("sweeps.run", "lenet_space", "--trials", str(trials), "--epochs", str(epochs), *OPTIONS)

    def _drive(self, *words: str) -> None:
        self.log = self._folder / f"{self._name}.log"
        command = [sys.executable, "-m", *words, "--name", self._name, "--out", str(self._folder / "runs")]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--address", self._address],
                env=environment(self._folder) | {"FER_CACHE": str(self._folder / "faces")},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def resume(self) -> None:
        self._drive("sweeps.run", "lenet_space", "--resume")

    def kill(self) -> int:
        """Kill the driver alone; when, in milliseconds since 1970."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return now_ms()

    def events(self) -> list[Event]:
        return list(read(self.journal)) if self.journal.exists() else []

    def out(self) -> int:
        """How many of its trials have a worker."""
        return sum(change for _, change in changes(self.events(), []))


def changes(events: list[Event], kills: list[int]) -> Iterator[tuple[int, int]]:
    """When a trial gets a worker (+1) and leaves it (-1), also by the death of its driver."""
    out: set[int] = set()
    deaths = iter([*kills, sys.maxsize])
    death = next(deaths)
    for event in events:
        if event.time_ms > death:
            yield death, -len(out)
            out, death = set(), next(deaths)
        if isinstance(event, TrialStarted | AttemptStarted):
            out.add(event.trial)
            yield event.time_ms, 1
        elif isinstance(event, TrialPaused | TrialEnded) and event.trial in out:
            out.remove(event.trial)
            yield event.time_ms, -1


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[tuple[Sweep, Sweep]]:
    with ray_head(tmp_path) as address:
        first = Sweep("first", address, tmp_path, trials=2, epochs=EPOCHS)
        wait_for(lambda: first.out() == SLOTS, 120, first.log.read_text, every=0.1)
        second = Sweep("second", address, tmp_path, trials=2, epochs=EPOCHS)
        try:
            yield first, second
        finally:
            for one in (first, second):
                one.process.kill()
                one.process.wait()


def test_two_sweeps_share_a_head_and_the_slots_of_a_killed_one_are_back_within_10_seconds(
    sweeps: tuple[Sweep, Sweep],
) -> None:
    first, second = sweeps
    wait_for(lambda: (first.out(), second.out()) == (1, 1), 120, second.log.read_text, every=0.1)
    killed = first.kill()
    wait_for(lambda: second.out() == SLOTS, BACK_SECONDS + 5, second.log.read_text, every=0.1)
    raised = [when for when, change in changes(second.events(), []) if change > 0 and when > killed]
    assert raised[0] - killed < 1000 * BACK_SECONDS

    first.resume()
    for one in (second, first):
        assert one.process.wait(PATIENCE) == 0, one.log.read_text()
        history = SweepHistory.load(one.journal)
        assert {trial.state for trial in history.trials.values()} == {"done"}
        assert history.finished
    both = sorted([*changes(first.events(), [killed]), *changes(second.events(), [])])
    used = 0
    for when, change in both:
        used += change
        assert used <= SLOTS, f"{used} trials had a worker at {when}"
