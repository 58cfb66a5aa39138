"""Trials that only exist in a clock of their own, for sweeps larger than any machine at hand.

The driver is the real one, and what it takes to decide counts in the simulated clock: trials wait for it as on a
cluster, where one thread hands out tasks and takes in reports, one after the other.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from fer_models import LeNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.driver.director import Director
from sweeps.driver.runner import TrialBody
from sweeps.space import Space
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tracking.record.layout import TrialFolder

if TYPE_CHECKING:
    import optuna

MEDIAN_EPOCH_SECONDS = 60.0
POLL_SECONDS = 1.0
"""How often a slot asks again that found no task."""
_SPREAD = 0.4  # deviation of the logarithm, between trials and again between epochs

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One turn of the driver: what for, how many trials there were, and seconds it took and the worker waited."""

    kind: Literal["ask", "report", "end"]
    trials: int
    busy: float
    waited: float


@dataclass
class _Slot:
    """A logical GPU; `since` is the simulated second from which it waits for the driver."""

    since: float = 0.0
    task: Task | None = None
    messages: Iterator[Message] = field(default_factory=lambda: iter(()))
    message: Message | None = None
    fault: str | None = None


class SimulatedRunner:
    """Runs trials on `slots` logical GPUs. An epoch lasts the `epoch_seconds` that its report says.

    `clock` tells what the driver takes, in seconds; `now` is the simulated time.
    """

    def __init__(
        self,
        slots: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        observe: Callable[[Call], None] = lambda call: None,
    ) -> None:
        self.now = 0.0
        self.trained_seconds = 0.0
        self._slots = slots
        self._clock, self._observe = clock, observe

    def run(self, director: Director, body: TrialBody) -> None:
        """Run the sweep in this thread."""
        queue = [(0.0, number, _Slot()) for number in range(self._slots)]
        turn = len(queue)
        while queue:
            arrived, _, slot = heapq.heappop(queue)
            self.now = max(self.now, arrived)
            slot.since = arrived
            if slot.task is not None:
                self._pass_on(director, slot)
                after = self._work(slot)
            elif self._place(director, body, slot):
                after = self._work(slot)
            elif director.busy or not director.exhausted:
                after = POLL_SECONDS
            else:
                continue
            heapq.heappush(queue, (self.now + after, turn, slot))
            turn += 1

    def _place(self, director: Director, body: TrialBody, slot: _Slot) -> bool:
        """Give a free slot a task; False where there is none now: who dies asks again itself."""
        slot.task = self._driver("ask", director, slot, director.next_task)
        if slot.task is not None:
            slot.messages = iter(body(slot.task))
        return slot.task is not None

    def _pass_on(self, director: Director, slot: _Slot) -> None:
        """Tell the director what became of the epoch; the slot stays in use, by this trial or for the next."""
        task, message, fault = slot.task, slot.message, slot.fault
        assert task is not None
        if message is None:
            goes_on = False
            self._driver("end", director, slot, lambda: director.worker_died(task.trial, str(fault)))
        else:
            kind: Literal["report", "end"] = "report" if isinstance(message, EpochReport) else "end"
            goes_on = self._driver(kind, director, slot, lambda: director.take(task.trial, message))
        if not goes_on:
            if hasattr(slot.messages, "close"):
                slot.messages.close()
            slot.task = None

    def _work(self, slot: _Slot) -> float:
        """Have the slot's trial run to its next message; how many simulated seconds that takes."""
        if slot.task is None:
            return 0.0
        try:
            slot.message, slot.fault = next(slot.messages), None
        except StopIteration:
            slot.message, slot.fault = None, "it left without a word"
        except Exception as error:
            slot.message, slot.fault = None, f"{type(error).__name__}: {error}"
        if not isinstance(slot.message, EpochReport):
            return 0.0
        self.trained_seconds += slot.message.metrics["epoch_seconds"]
        return slot.message.metrics["epoch_seconds"]

    def _driver(
        self, kind: Literal["ask", "report", "end"], director: Director, slot: _Slot, act: Callable[[], T]
    ) -> T:
        began = self._clock()
        result = act()
        busy = self._clock() - began
        self.now += busy
        self._observe(Call(kind, len(director.history.trials), busy, self.now - slot.since))
        return result


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Five settings, as the built-in spaces have."""
    recipe = Recipe(
        lr=trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        momentum=trial.suggest_float("momentum", 0.8, 0.99),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 3e-3, log=True),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128]),
    )
    return TrialConfig(net=LeNetConfig(dropout=trial.suggest_float("dropout", 0.0, 0.6)), recipe=recipe)


SPACE = Space(suggest=suggest, max_epochs=20, first_rung_epochs=2, name="simulated", sampler="tpe", pruner="halving")


def learning(task: Task, deaths: float = 0.0) -> Iterator[Message]:
    """A body that learns in no time: accuracies by its settings, and durations, all drawn from the task's seed.

    In each epoch its worker dies with a chance of `deaths`, which the attempt decides as well.
    """
    rng = np.random.default_rng(task.seed)
    fate = np.random.default_rng([task.seed, task.attempt])
    folder = TrialFolder(Path(task.folder))
    pace = MEDIAN_EPOCH_SECONDS * rng.lognormal(0, _SPREAD)
    best = 0.6 - 0.05 * abs(np.log10(task.config.recipe.lr) + 2) + rng.normal(0, 0.02)
    for epoch in range(1, task.epochs + 1):
        if folder.verdict.exists():
            break
        if fate.random() < deaths:
            raise OSError("the machine is gone")
        accuracy = float(np.clip(best * (1 - np.exp(-epoch / 4)) + rng.normal(0, 0.01), 0, 1))
        seconds = float(pace * rng.lognormal(0, _SPREAD / 4))
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=_metrics(accuracy, seconds))
    yield TrialEnd(attempt=task.attempt, state="ended")


def _metrics(accuracy: float, seconds: float) -> dict[str, float]:
    return {
        "train_loss": 2 - 2 * accuracy,
        "train_accuracy": accuracy,
        "val_loss": 2.1 - 2 * accuracy,
        "val_accuracy": accuracy,
        "learning_rate": 0.01,
        "epoch_seconds": seconds,
        "images_per_second": 28709 / seconds,
    }
