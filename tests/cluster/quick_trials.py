"""Trials that sleep instead of training and keep a diary of where they ran; as a program, a sweep of them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

from fer_data import DataOptions
from fer_models import Recipe
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from sweeps.trial.run_trial import claim, still_owned
from tests.stand_ins import SMALL_NET
from tracking.record.files import write_json
from tracking.record.layout import TrialFolder

EPOCH_SECONDS = 0.4


def config(lr: float) -> TrialConfig:
    return TrialConfig(net=SMALL_NET, recipe=Recipe(lr=lr, batch_size=50))


def suggest(trial: optuna.Trial) -> TrialConfig:
    return config(trial.suggest_float("lr", 1e-4, 1.0, log=True))


SPACE = Space(suggest=suggest, baselines=[Baseline("first report", config(0.01))], max_epochs=4, trials=8, name="quick",
              pruner="halving")  # fmt: skip


def val_accuracy(seed: int, epoch: int) -> float:
    """What a trial reaches depends on its seed and the epoch alone, whoever computes it."""
    return (seed % 997) / 2000 + 0.01 * epoch


def body(task: Task) -> Iterator[Message]:
    """As `run_trial`: claims its folder, checkpoints before it reports, obeys a verdict, leaves to a later attempt."""
    import ray

    folder = TrialFolder(Path(task.folder)).create()
    checkpoint = folder.root / "checkpoint.json"
    where = {"attempt": task.attempt, "node": ray.get_runtime_context().get_node_id(), "pid": os.getpid(),
             "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "mps": os.environ.get("CUDA_MPS_PIPE_DIRECTORY")}  # fmt: skip
    claim(task)
    done = json.loads(checkpoint.read_text())["epoch"] if checkpoint.exists() else 0
    for epoch in range(1, task.epochs + 1):
        if epoch > done:
            if folder.verdict.exists():
                break
            start = time.time()
            _gather(folder.root.parents[2] / "gather", folder.root.parent)
            time.sleep(EPOCH_SECONDS)
            if not still_owned(task):
                return
            write_json(checkpoint, {"epoch": epoch})
            with (folder.root / f"diary-{task.attempt}.jsonl").open("a") as diary:
                diary.write(json.dumps({**where, "epoch": epoch, "start": start, "end": time.time()}) + "\n")
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics={"val_accuracy": val_accuracy(task.seed, epoch)})
    yield TrialEnd(attempt=task.attempt, state="ended")


def _gather(wanted: Path, trials: Path) -> None:
    """Wait until as many trials have begun as a file beside the sweep says, if there is one."""
    end = time.monotonic() + 120
    while wanted.exists() and len(list(trials.glob("*/.attempt.json"))) < int(wanted.read_text()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


def diaries(sweep: Path) -> list[dict[str, Any]]:
    """Every epoch that any attempt at any trial of a sweep has computed, by the time it was done."""
    lines = [
        {"trial": path.parent.name, **json.loads(line)}
        for path in sweep.rglob("diary-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return sorted(lines, key=lambda line: float(line["end"]))


def sweep(**options: Any) -> int:
    """Run a sweep of these trials; what is given are the fields of `Options`."""
    asked = {"data": DataOptions(limit_train=350), "figures": False, **options}
    return run_sweep(SPACE, body=body, **asked).exit_code


if __name__ == "__main__":
    from tests.cluster.quick_trials import sweep as importable  # workers find the body by this name

    sys.exit(importable(**json.loads(sys.argv[1])))
