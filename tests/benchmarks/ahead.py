"""What writing a checkpoint while the next epoch trains saves, at short epochs: with and without, in turns.

    python -m tests.benchmarks.ahead [--repeats 6] [--epochs 6] [--limit-train 256] [--net alexnet|compact_resnet]

A second is one of the wall clock, between a trial's first report and its last, divided by the epochs between them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TypeVar
from unittest import mock

import torch

from fer_data import DataOptions, prepare
from fer_models import AlexNetConfig, CompactResNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.trial import one_ahead
from sweeps.trial.messages import EpochReport, Task
from sweeps.trial.run_trial import run_trial
from tests.benchmarks.rows import spread

T = TypeVar("T")

CONFIGS = {
    "alexnet": TrialConfig(net=AlexNetConfig(norm="batch"), recipe=Recipe(lr=0.01)),
    "compact_resnet": TrialConfig(
        net=CompactResNetConfig(), recipe=Recipe(optimizer="adamw", lr=1e-3, ema_decay=0.99)
    ),
}  # fmt: skip


def main() -> None:
    given = _arguments()
    faces = prepare(DataOptions(limit_train=given.limit_train))
    walls: dict[str, list[float]] = {"one ahead": [], "in turn": []}
    for repeat in range(given.repeats + 1):
        for name in walls:
            with mock.patch.object(one_ahead, "one_ahead", one_ahead.one_ahead if name == "one ahead" else _in_turn):
                seconds = _seconds_per_epoch(str(faces), CONFIGS[given.net], given.epochs)
            if repeat > 0:  # the first warms caches up
                walls[name].append(seconds)
    for name, seconds_each in walls.items():
        each = spread(seconds_each, 3).replace("\\[", "[")  # it is written for rich
        print(f"{given.net}, {name}: {each} s per epoch, n = {given.repeats}")
    saved = [1 - ahead / turn for ahead, turn in zip(walls["one ahead"], walls["in turn"], strict=True)]
    print(f"saved: {median(saved):.1%} ({min(saved):.1%} to {max(saved):.1%})")


@contextmanager
def _in_turn(items: Callable[[Callable[[], bool]], Generator[T]], threads: int) -> Iterator[Iterator[T]]:
    """As `one_ahead`, but an item is computed when it is asked for."""
    torch.set_num_threads(threads)
    with closing(items(lambda: False)) as coming:
        yield coming


def _seconds_per_epoch(faces: str, config: TrialConfig, epochs: int) -> float:
    with tempfile.TemporaryDirectory(prefix="ahead-") as folder:
        task = Task(trial=0, attempt=0, folder=str(Path(folder) / "0"), config=config, seed=0, epochs=epochs,
                    faces=faces, figures=False)  # fmt: skip
        reported = [time.perf_counter() for message in run_trial(task) if isinstance(message, EpochReport)]
    return (reported[-1] - reported[0]) / (epochs - 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit-train", type=int, default=256)
    parser.add_argument("--net", choices=list(CONFIGS), default="alexnet")
    return parser.parse_args()


if __name__ == "__main__":
    main()
