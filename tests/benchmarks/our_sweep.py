"""A sweep of this project's, through `run_sweep`, for its wall clock to be taken from outside.

python -m tests.benchmarks.our_sweep FOLDER --trials N [--runner ray|inline] [--body burn|lenet]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from fer_models import LeNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Space
from sweeps.sweep import run_sweep
from sweeps.trial.messages import Message, Task
from sweeps.trial.run_trial import run_trial
from tests.benchmarks import burn

if TYPE_CHECKING:
    import optuna


def suggest(trial: optuna.Trial) -> TrialConfig:
    recipe = Recipe(
        lr=trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        momentum=trial.suggest_float("momentum", 0.85, 0.95),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 3e-3, log=True),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128]),
    )
    return TrialConfig(net=LeNetConfig(dropout=trial.suggest_float("dropout", 0.0, 0.6)), recipe=recipe)


# The first rung lies beyond the last epoch, so that nothing is given up and the work is equal.
SPACE = Space(suggest=suggest, max_epochs=burn.EPOCHS, first_rung_epochs=burn.EPOCHS + 1, name="overhead")


def lenet(task: Task, first_step: Path) -> Iterator[Message]:
    """A real trial that notes when its first batch is ready to be trained on."""
    from fer_data.augmentation import batches

    original = batches.train_batches

    def marked(*args: Any, **named: Any) -> Iterator[batches.Batch]:
        for batch in original(*args, **named):
            burn.mark(first_step)
            yield batch

    with mock.patch.object(batches, "train_batches", marked):
        yield from run_trial(task)


def main() -> None:
    given = _arguments()
    body = {"burn": burn.burn, "lenet": lenet}[given.body]
    result = run_sweep(
        SPACE,
        body=partial(body, first_step=given.folder.resolve() / "first_step"),
        trials=given.trials,
        epochs=burn.EPOCHS if given.body == "burn" else 1,
        runner=given.runner,
        out=given.folder / "runs",
        name="overhead",
        figures=False,
    )
    done = result.history.count("done")
    if done != given.trials or result.backlog:
        raise SystemExit(f"{done} of {given.trials} trials are done, {result.backlog} events never reached MLflow")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--runner", choices=["ray", "inline"], default="ray")
    parser.add_argument("--body", choices=["burn", "lenet"], default="burn")
    return parser.parse_args()


if __name__ == "__main__":
    main()
