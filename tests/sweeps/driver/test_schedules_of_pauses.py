"""Random schedules of pauses, kills, drivers that leave and slots that come and go: what holds whatever happens."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.driver.director import Director
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.benchmarks.simulated import SimulatedRunner
from tests.sweeps.fake_trials import metrics, only_sampled, open_desk, outcome, skill, spec
from tracking.record.events import EpochDone, Event, TrialPaused
from tracking.record.history import SweepHistory

TRIALS, EPOCHS, SLOTS, DRIVERS = 8, 4, 3, 12
SPACE = only_sampled(first_rung_epochs=9)  # nothing is pruned, and the sampler draws its first ten at random


class Body:
    """Trains each epoch after the last checkpoint, knows who is at work, and dies now and then after a checkpoint."""

    def __init__(self, chance: random.Random, deaths: float) -> None:
        self.chance, self.deaths = chance, deaths
        self.trained: Counter[tuple[int, int]] = Counter()
        self.open: set[int] = set()
        self.died = 0

    def __call__(self, task: Task) -> Iterator[Message]:
        assert task.trial not in self.open, "a trial in two places"
        self.open.add(task.trial)
        try:
            yield from self._epochs(task)
        finally:
            self.open.discard(task.trial)

    def _epochs(self, task: Task) -> Iterator[Message]:
        checkpoint = Path(task.folder) / "checkpoint.json"
        done = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
        for epoch in range(1, task.epochs + 1):
            if epoch > done:
                self.trained[task.trial, epoch] += 1
                if self.chance.random() < self.deaths:
                    self.died += 1
                    raise OSError("killed in its epoch")
                checkpoint.write_text(json.dumps(epoch))
            yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(skill(task, epoch)))
        yield TrialEnd(attempt=task.attempt, state="ended")


class Persons:
    """Pause, unpause and limit at random, and have the driver leave; check that each trial is in exactly one state."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def __call__(self, director: Director) -> None:
        held = {trial.number for trial in director.history.paused}
        assert not held & set(director.out)
        assert not any(director.history.trials[number].is_over for number in director.out)
        assert len(director.out) <= SLOTS
        dice = self.chance.random()
        if dice < 0.08 and (out := [one for one in director.out if one not in director._queue._asked]):
            director.pause(self.chance.choice(out), "person")
        elif dice < 0.24 and held:
            director.unpause(self.chance.choice(sorted(held)))
        elif dice < 0.34:
            director.limit(self.chance.choice([0, 1, 2, None]), "share")
        elif dice < 0.36:
            director.request_stop("it leaves")


@pytest.mark.parametrize("seed", range(10))
def test_every_schedule_comes_to_what_an_unbroken_sweep_comes_to(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    asked = spec(trials=TRIALS, max_epochs=EPOCHS)
    whole = open_desk(tmp_path / "whole", SPACE, asked)
    SimulatedRunner(SLOTS, clock=lambda: 0.0).run(whole.director, Body(chance, deaths=0.0))
    body = Body(chance, deaths=0.05)
    heard: list[Event] = []
    for driver in range(DRIVERS):
        calm = driver == DRIVERS - 1
        held = open_desk(tmp_path / "night", SPACE, asked, attendants=() if calm else (Persons(chance),),
                         listeners=(lambda event, _: heard.append(event),))  # fmt: skip
        if calm:
            for trial in held.director.history.paused:
                held.director.unpause(trial.number)
        SimulatedRunner(SLOTS, clock=lambda: 0.0).run(held.director, body)
        if chance.random() < 0.5:  # else it is killed, and leaves nothing in order
            held.director.leave()
        held.journal.close()
        assert body.open == set()
    history = SweepHistory.load(held.folder.journal)
    assert {trial.state for trial in history.trials.values()} == {"done"}
    assert outcome(held.folder.journal) == outcome(whole.folder.journal)
    epochs = Counter((event.trial, event.epoch) for event in heard if isinstance(event, EpochDone))
    assert set(epochs.values()) == {1}
    assert sum(body.trained.values()) == TRIALS * EPOCHS + body.died, (
        "no epoch is trained again but one that was killed"
    )
    assert any(isinstance(event, TrialPaused) for event in heard)
