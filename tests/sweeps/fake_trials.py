"""A space whose trials cost nothing: bodies without torch, sweeps driven through the in-process runner."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_data import DataOptions
from fer_models import AlexNetConfig, LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig
from sweeps.driver.director import Director
from sweeps.driver.runner import TrialBody
from sweeps.search.study import Study
from sweeps.spec import SweepSpec
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tracking.record.events import Event, SweepStarted
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal, read
from tracking.record.layout import SweepFolder, TrialFolder


def config(lr: float = 0.01, batch_size: int = 2, **more: Any) -> TrialConfig:
    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=batch_size, **more))


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Conditional parameters, of every kind of distribution."""
    recipe = Recipe(lr=trial.suggest_float("lr", 1e-3, 0.1, log=True), batch_size=trial.suggest_int("batch_size", 1, 4))
    if trial.suggest_categorical("net", ["lenet", "alexnet"]) == "lenet":
        return TrialConfig(net=LeNetConfig(dropout=trial.suggest_float("dropout", 0, 0.5)), recipe=recipe)
    return TrialConfig(net=AlexNetConfig(norm=trial.suggest_categorical("norm", ["lrn", "batch"])), recipe=recipe)


SPACE = Space(
    suggest=suggest,
    baselines=[Baseline("first report", config(0.01), "50 %"), Baseline("second report", config(0.02))],
    max_epochs=4,
    trials=8,
    first_rung_epochs=1,
    name="fake_space",
    sampler="tpe",
    pruner="halving",
    rungs="all",
)
PATIENT = replace(SPACE, first_rung_epochs=2)
"""Leaves a trial time to diverge before it is pruned."""


def with_reports_of(epochs: int, space: Space = SPACE) -> Space:
    """The space with baselines whose reports trained them for so long."""
    return replace(space, baselines=[replace(baseline, epochs=epochs) for baseline in space.baselines])


def metrics(val_accuracy: float, epoch_seconds: float = 2.0) -> dict[str, float]:
    return {
        "train_loss": 1.5 - val_accuracy,
        "train_accuracy": val_accuracy,
        "val_loss": 2 - val_accuracy,
        "val_accuracy": val_accuracy,
        "learning_rate": 0.01,
        "epoch_seconds": epoch_seconds,
        "images_per_second": 1000.0,
    }


def skill(task: Task, epoch: int) -> float:
    """A validation accuracy that depends on configuration and epoch alone."""
    return (task.seed % 997) / 2000 + 0.05 * epoch


def verdict_stands(task: Task) -> bool:
    return TrialFolder(Path(task.folder)).verdict.exists()


def good_body(task: Task) -> Iterator[Message]:
    """Keeps a checkpoint before it reports, tells of its past epochs again, and obeys a verdict, as `run_trial`."""
    checkpoint = Path(task.folder) / "checkpoint.json"
    done = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    for epoch in range(1, task.epochs + 1):
        if epoch > done:
            if verdict_stands(task):
                break
            checkpoint.write_text(json.dumps(epoch))
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(skill(task, epoch)))
    yield TrialEnd(attempt=task.attempt, state="ended")


def slow_body(task: Task) -> Iterator[Message]:
    """As `good_body`, but an epoch takes 20 ms: longer than the clock's step of 1 ms, and than a small budget."""
    for message in good_body(task):
        time.sleep(0.02)
        yield message


def diverging_body(task: Task) -> Iterator[Message]:
    """As `good_body`, but batches of three and four diverge in their second epoch."""
    for message in good_body(task):
        if isinstance(message, EpochReport) and message.epoch > 1 and task.config.recipe.batch_size >= 3:
            yield TrialEnd(
                attempt=task.attempt, state="failed", diverged=True, reason="train_loss is nan at epoch 2, step 7"
            )
            return
        yield message


def scripted_body(values: dict[int, list[float]]) -> TrialBody:
    """Trial number → its validation accuracies, epoch by epoch."""

    def body(task: Task) -> Iterator[Message]:
        for epoch, value in enumerate(values[task.trial], start=1):
            if verdict_stands(task):
                break
            yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value))
        yield TrialEnd(attempt=task.attempt, state="ended")

    return body


def spec(trials: int = 4, max_epochs: int = 3, baseline_epochs: int = 3, seed: int = 7, **more: Any) -> SweepSpec:
    return SweepSpec(
        name="night",
        space="fake_space",
        data=DataOptions(),
        dataset="synthetic faces",
        fingerprint="00ff00ff00ff00ff",
        synthetic=True,
        classes=("Angry", "Happy"),
        faces="/nowhere",
        trials=trials,
        max_epochs=max_epochs,
        baseline_epochs=(baseline_epochs,) * len(more.get("baselines", {})),
        seed=seed,
        **more,
    )


@dataclass
class Desk:
    """A director whose journal is open."""

    folder: SweepFolder
    director: Director
    journal: Journal

    def task(self) -> Task:
        """The next trial to run; there must be one."""
        task = self.director.next_task()
        assert task is not None
        return task

    def events(self) -> list[Event]:
        return list(read(self.folder.journal))

    def story(self) -> list[tuple[Any, ...]]:
        """The journal's events after the first, in short."""
        return [told(event) for event in self.events()[1:]]


def told(event: Any) -> tuple[Any, ...]:
    match event.event:
        case "epoch":
            return ("epoch", event.trial, event.epoch)
        case "end":
            return ("end", event.trial, event.state)
        case "attempt":
            return ("attempt", event.trial, event.attempt)
        case "trial" | "verdict":
            return (event.event, event.trial)
        case name:
            return (name,)


def open_desk(root: Path, space: Space = SPACE, asked: SweepSpec | None = None, **more: Any) -> Desk:
    """Open the journal at `root`, for the first time or again, as a driver does."""
    asked = asked or spec()
    folder = SweepFolder(root).create()
    journal = Journal.open(folder.journal)
    events: list[Event] = list(read(folder.journal))
    if not events:
        opening = SweepStarted(sweep_id="0" * 32, name=asked.name, space=space.name, spec=asked.model_dump(mode="json"))
        journal.append(opening)
        events = [opening]
    history = SweepHistory.replay(events)
    study = Study(folder.study_log, space, asked.seed, events)
    return Desk(folder, Director(folder, asked, space, history, journal, study, **more), journal)


def only_sampled(first_rung_epochs: int = 1, draw: Callable[[optuna.Trial], TrialConfig] = suggest) -> Space:
    """The fake space without baselines."""
    return replace(SPACE, suggest=draw, baselines=(), first_rung_epochs=first_rung_epochs)


def take_all(desk: Desk, task: Task, values: list[float]) -> list[bool]:
    return [desk.director.take(task.trial, report(task, epoch, value)) for epoch, value in enumerate(values, start=1)]


def report(task: Task, epoch: int, value: float = 0.5) -> EpochReport:
    return EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value), iterations=((10 * epoch, 1.0, 0.1),))


def ended(task: Task) -> TrialEnd:
    return TrialEnd(attempt=task.attempt, state="ended")


def outcome(journal: Path) -> dict[int, dict[str, Any]]:
    """What a sweep came to, without times, attempts and interruptions."""
    return {
        trial.number: {
            "config": trial.started.config,
            "baseline": trial.started.baseline,
            "params": trial.started.params,
            "seed": trial.started.seed,
            "epochs": [(epoch.epoch, epoch.metrics, epoch.iterations) for epoch in trial.epochs],
            "state": trial.state,
            "over": trial.is_over,
            "reason": trial.end.reason if trial.end else None,
            "best": trial.end.best if trial.end else None,
            "diverged": trial.end.diverged if trial.end else None,
        }
        for trial in SweepHistory.load(journal).trials.values()
    }


MY_SPACE = """
from fer_models import LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig

def config(lr):
    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=8))

def suggest(trial):
    return config(trial.suggest_float("lr", 0.001, 0.1, log=True))

SPACE = Space(suggest=suggest, baselines=[Baseline("report", config(0.01), "50 %")], max_epochs=3, trials=4)
"""


def refused(capsys: pytest.CaptureFixture[str], act: Callable[[], int]) -> str:
    """The message of a command that is refused as it must be."""
    capsys.readouterr()
    assert act() == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err + captured.out
    assert captured.out == ""
    return captured.err.removeprefix("error: ").strip()
