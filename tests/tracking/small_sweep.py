"""A small sweep written as a driver would, and what a store then holds of it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tracking.record.events import (
    AttemptStarted,
    DriverStarted,
    DriverStopped,
    EpochDone,
    Event,
    Group,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialStarted,
)
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

SWEEP_ID = "0123456789abcdef0123456789abcdef"
LARGE_T = 12.706204736432095
"""Student's t of one degree of freedom that leaves 2.5 % above it."""


@dataclass
class Sweep:
    """Writes a journal with times 1 ms apart from a fixed start, and says what MLflow must hold then."""

    folder: SweepFolder
    time_ms: int = 1_700_000_000_000
    sweep_id: str = SWEEP_ID
    points: dict[tuple[str, str, int], float] = field(default_factory=dict)
    trained: set[tuple[int, int]] = field(default_factory=set)
    best: float = 0.0
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.create()
        self.journal = Journal.open(self.folder.journal)

    def tick(self) -> int:
        self.time_ms += 1
        return self.time_ms

    def write(self, *events: Event) -> None:
        self.journal.append(*events)

    def start(self, space: str = "lenet_space") -> None:
        tags = {"dataset": "synthetic faces", "dataset.fingerprint": "00ff00ff00ff00ff", "faces": "SYNTHETIC"}
        self.write(
            SweepStarted(
                time_ms=self.tick(), sweep_id=self.sweep_id, name="night", space=space, tags=tags, spec={"trials": 3}
            ),
            self.driver(),
        )

    def driver(self, resumed: bool = False) -> DriverStarted:
        return DriverStarted(
            time_ms=self.tick(), host="h", pid=1, versions={"torch": "2.14.1"}, git_commit="abc123", resumed=resumed
        )

    def trial(self, number: int, baseline: str | None = None, group: Group | None = None) -> None:
        config = {"net": {"name": "lenet", "dropout": 0.5}, "recipe": {"lr": 0.01, "ema_decay": None}}
        self.write(
            TrialStarted(
                time_ms=self.tick(), trial=number, config_id=f"c{number}", config=config, seed=7, epochs=3,
                baseline=baseline, group=group,
            ),
            AttemptStarted(time_ms=self.tick(), trial=number, attempt=0, reason="first"),
        )  # fmt: skip

    def epoch(self, number: int, epoch: int) -> None:
        metrics = {"train_loss": 1 / (epoch + number + 1), "val_accuracy": 0.1 * epoch + number / 7}
        iterations = ((50 * epoch - 25, 0.3, 0.01), (50 * epoch, 0.2, 0.01))
        self.write(EpochDone(time_ms=self.tick(), trial=number, epoch=epoch, metrics=metrics, iterations=iterations))
        key = f"{self.sweep_id}/{number}"
        self.points |= {(key, name, epoch): value for name, value in metrics.items()}
        for iteration, loss, rate in iterations:
            self.points[(key, "iteration/train_loss", iteration)] = loss
            self.points[(key, "iteration/learning_rate", iteration)] = rate
        if (number, epoch) not in self.trained:
            self.trained.add((number, epoch))
            if metrics["val_accuracy"] > self.best:
                self.best = metrics["val_accuracy"]
                self.points[(self.sweep_id, "sweep/best_val_accuracy", len(self.trained))] = self.best

    def end(self, number: int, state: str = "done", *, reason: str | None = None, final: bool = True) -> None:
        best = {"best_val_accuracy": 0.3 + number / 7}
        self.write(
            TrialEnded.model_validate(
                {"time_ms": self.tick(), "trial": number, "state": state, "reason": reason, "best": best,
                 "epochs": 3, "final": final}
            )
        )  # fmt: skip
        if final:
            self.points |= {(f"{self.sweep_id}/{number}", name, 3): value for name, value in best.items()}
            self.ended.append(state)
            counts = {one: self.ended.count(one) for one in ("done", "pruned", "failed")} | {
                "epochs": len(self.trained)
            }
            self.points |= {(self.sweep_id, f"sweep/{one}", len(self.ended)): n for one, n in counts.items()}

    def predictions(self, number: int, right: int, epoch: int = 3) -> None:
        """Write a trial's predictions of 100 faces at an epoch; the first `right` of them are correct."""
        probabilities = np.where((np.arange(100) < right)[:, None], [0.9, 0.1], [0.1, 0.9])
        path = self.folder.trial(number).create().val_probabilities
        np.savez(path, labels=np.zeros(100, np.int64), probabilities=probabilities, epoch=epoch)

    def member(self, number: int, first: int, size: int = 2, epochs: int = 2) -> None:
        """A trial of a group, through all its epochs."""
        self.trial(number, group=Group(first=first, member=number - first, size=size))
        for epoch in range(1, epochs + 1):
            self.epoch(number, epoch)
        self.end(number)

    def group_mean(self, first: int, values: list[float], low: float | None = None) -> None:
        """Expect the mean of a group's members that are done; with two values or more, from `low` to as far above, but
        within 0 and 1.
        """
        key, mean, step = f"{self.sweep_id}/group {first}", sum(values) / len(values), len(values)
        expected = {"best_val_accuracy": mean, "group/mean_val_accuracy": mean, "group/members": float(step)}
        if low is not None:
            expected["group/mean_val_accuracy_low"] = max(low, 0.0)
            expected["group/mean_val_accuracy_high"] = min(2 * mean - low, 1.0)
        self.points |= {(key, name, step): value for name, value in expected.items()}

    def grouped(self) -> None:
        """Two groups of two trials; the second one is given up after its first."""
        self.start()
        self.member(0, 0)
        self.group_mean(0, [0.3])
        self.member(1, 0)
        self.group_mean(0, [0.3, 0.3 + 1 / 7], low=0.3 + 1 / 14 - LARGE_T * 1 / 14)
        self.trial(2, group=Group(first=2, member=0, size=2))
        self.epoch(2, 1)
        self.end(2, "pruned", reason="0.31 under the cut 0.38")
        self.finish()

    def stop(self) -> None:
        self.write(DriverStopped(time_ms=self.tick(), reason="SIGTERM"))

    def finish(self) -> None:
        self.write(SweepEnded(time_ms=self.tick(), done=2, pruned=1))

    def whole(self) -> None:
        """Three trials of three epochs, their epochs interleaved, from the first line to the last."""
        self.start()
        for number in range(3):
            self.trial(number, "LENET_1" if number == 0 else None)
        for epoch in (1, 2, 3):
            for number in range(3):
                self.epoch(number, epoch)
        self.end(0)
        self.end(1, "pruned", reason="0.31 under the cut 0.38")
        self.end(2)
        self.finish()


@dataclass(frozen=True)
class Stored:
    """What MLflow's database holds, read by SQL and not by its client."""

    path: Path

    def query(self, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def points(self) -> dict[tuple[object, object, object], object]:
        """Metric rows of living runs by (trial.key, metric, step); fails on two rows for one."""
        rows = self.query(
            "SELECT t.value, m.key, m.step, m.value FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid "
            "JOIN runs r ON r.run_uuid = m.run_uuid WHERE t.key = 'trial.key' AND r.lifecycle_stage = 'active'"
        )
        points = {row[:3]: row[3] for row in rows}
        assert len(points) == len(rows), "a point is stored twice"
        return points  # type: ignore[return-value]

    def runs(self) -> dict[object, tuple[object, ...]]:
        """Living runs by trial.key: (status, start_time, end_time, name); fails on two runs of one key."""
        rows = self.query(
            "SELECT t.value, r.status, r.start_time, r.end_time, r.name FROM runs r JOIN tags t "
            "ON t.run_uuid = r.run_uuid WHERE t.key = 'trial.key' AND r.lifecycle_stage = 'active'"
        )
        runs = {row[0]: row[1:] for row in rows}
        assert len(runs) == len(rows), "a trial has two runs"
        return runs

    def tags(self, key: str) -> dict[str, str]:
        rows = self.query(
            "SELECT t.key, t.value FROM tags t JOIN tags k ON k.run_uuid = t.run_uuid "
            f"WHERE k.key = 'trial.key' AND k.value = '{key}'"
        )
        return {str(name): str(value) for name, value in rows}
