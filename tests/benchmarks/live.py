"""Whole sweeps on real faces, ours and the glue that Ray's tutorial shows: when each reaches the other's accuracy.

    python -m tests.benchmarks.live --data fer2013.csv [--minutes 10] [--repeats 5] [--together]

Both draw from the same wide space, train the same net on the same faces by the same `fit` in the same precision, one core for
each trial, and have the same minutes from the start of their process. The glue is Ray Tune with OptunaSearch, ASHA at its defaults and
MLflowLoggerCallback, and keeps nothing but metrics; ours writes checkpoints, predictions and pictures as always.
They run in turn on all cores, or with `--together` at the same time on half of the cores each: then both have the same
load of the machine beside them. A sweep that never reaches the accuracy counts with all its time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fer_data import AugmentConfig, DataOptions, prepare
from fer_models import LeNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Space
from tests.benchmarks.curves.space import Draws, draw_steps

if TYPE_CHECKING:
    import optuna

EPOCHS = 12
SIDES = ("ours", "glue")
_PATIENCE_SECONDS = 300  # beside the minutes of the sweep: to start, to draw, to end


def suggest(trial: Draws) -> TrialConfig:
    """LeNet with the learning rate over four decades and the decay over three, where `lenet_space` has one or two."""
    recipe = Recipe(**draw_steps(trial))
    augment = AugmentConfig(
        flip=trial.suggest_float("flip", 0.0, 0.5),
        rotate_deg=trial.suggest_float("rotate_deg", 0.0, 30.0),
        shift=trial.suggest_float("shift", 0.0, 0.2),
    )
    return TrialConfig(
        net=LeNetConfig(dropout=trial.suggest_float("dropout", 0.0, 0.8)), recipe=recipe, augment=augment
    )


SPACE = Space(suggest=suggest, max_epochs=EPOCHS, trials=10_000, name="live")


@dataclass(frozen=True)
class Curve:
    """The best val accuracy so far of a sweep, by seconds since its process started."""

    seconds: tuple[float, ...]
    best: tuple[float, ...]
    epochs: int
    trials: int

    def reaches(self, accuracy: float, limit: float) -> float:
        return next((at for at, best in zip(self.seconds, self.best, strict=True) if best >= accuracy), limit)


def ours(folder: Path, data: DataOptions, seconds: float, seed: int) -> None:
    """A sweep by `run_sweep` at its defaults."""
    from sweeps.sweep import run_sweep
    from tracking.record.events import EpochDone, Event

    def listen(event: Event, _: object) -> None:
        if isinstance(event, EpochDone):
            _note(folder, event.trial, event.metrics["val_accuracy"])

    run_sweep(
        SPACE, data=data, out=folder / "runs", name="live", seed=seed, time_budget_seconds=seconds, listeners=[listen]
    )


def glue(folder: Path, data: DataOptions, seconds: float, seed: int) -> None:
    """Ray's own pieces, as "Using MLflow with Tune" and "Running Tune experiments with Optuna" put them together."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    ray.init(address="local", num_cpus=len(os.sched_getaffinity(0)))
    tracking = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="glue")
    tune.Tuner(
        tune.with_resources(partial(_train, folder=folder, data=data), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(space=_draw, metric="val_accuracy", mode="max", seed=seed),
            scheduler=ASHAScheduler(metric="val_accuracy", mode="max", max_t=EPOCHS),
            num_samples=-1,
            time_budget_s=seconds,
        ),
        run_config=tune.RunConfig(name="glue", storage_path=str(folder / "results"), callbacks=[tracking]),
    ).fit()


def _draw(trial: optuna.Trial) -> None:
    suggest(trial)


def _train(config: dict[str, Any], folder: Path, data: DataOptions) -> None:
    import optuna
    import torch
    from ray import tune

    from fer_data import open_cached
    from fer_data.augmentation.batches import batches_per_epoch, train_batches
    from fer_models import Diverged
    from fer_models.configs.precision import device_kind, fastest
    from fer_models.nets.registry import build
    from fer_models.training.fit import fit
    from fer_models.training.state import new_state

    torch.set_num_threads(1)
    faces, drawn = open_cached(prepare(data)), suggest(optuna.trial.FixedTrial(config))
    recipe, augment = drawn.recipe, drawn.augment
    precision, memory_format = fastest(drawn.net.name, device_kind("cpu"))  # as every sweep of ours chooses by itself
    generator = torch.Generator().manual_seed(0)
    net = build(drawn.net, classes=len(faces.classes), mean_image=faces.mean_image(), generator=generator)
    try:
        for epoch in fit(
            new_state(net, recipe),
            lambda random: train_batches(faces.train, recipe.batch_size, augment, random),
            (faces.val.images, faces.val.labels),
            recipe=recipe,
            epochs=EPOCHS,
            seed=0,
            iterations_per_epoch=batches_per_epoch(faces.train, recipe.batch_size, augment),
            precision=precision,
            memory_format=memory_format,
        ):
            right = epoch.val_probabilities.argmax(1) == faces.val.labels
            _note(folder, tune.get_context().get_trial_id(), float(right.mean()))
            tune.report({"val_accuracy": float(right.mean()), "train_loss": epoch.train_loss})
    except Diverged:
        tune.report({"val_accuracy": 0.0})  # an error would end the trial without teaching OptunaSearch


def _note(folder: Path, trial: int | str | None, accuracy: float) -> None:
    with (folder / "epochs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps([time.time(), trial, accuracy]) + "\n")


@dataclass(frozen=True)
class Setting:
    """What all sweeps of a comparison have in common."""

    data: str
    faces: int
    seconds: float
    out: Path


def run(side: str, repeat: int, cores: set[int], setting: Setting) -> Curve:
    """One sweep as a process of its own, or what an earlier call left of it."""
    folder = setting.out / f"{side}-{repeat}"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done.json"
    if not done.exists():
        (folder / "epochs.jsonl").unlink(missing_ok=True)
        began = time.time()
        line = [sys.executable, "-m", "tests.benchmarks.live", "--data", setting.data, "--faces", str(setting.faces)]
        line += ["--minutes", str(setting.seconds / 60), "--out", str(folder), "--only", side, "--seed", str(repeat)]
        line += ["--cores", *map(str, sorted(cores))]
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            limit, environment = setting.seconds + _PATIENCE_SECONDS, {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(line, check=True, stdout=log, stderr=log, timeout=limit, env=environment)
        done.write_text(json.dumps(began), encoding="utf-8")
    began = json.loads(done.read_text(encoding="utf-8"))
    noted = [json.loads(line) for line in (folder / "epochs.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = sorted((at - began, str(trial), accuracy) for at, trial, accuracy in noted if at - began <= setting.seconds)
    best = np.maximum.accumulate([0.0, *(accuracy for *_, accuracy in rows)])[1:]
    return Curve(tuple(at for at, *_ in rows), tuple(best), len(rows), len({trial for _, trial, _ in rows}))


def compare(repeats: int, together: bool, setting: Setting) -> list[tuple[Curve, Curve]]:
    """Ours and the glue of each repeat; which begins changes with each."""
    every = sorted(os.sched_getaffinity(0))
    half = len(every) // 2
    cores = [set(every[:half]), set(every[half:])] if together else [set(every)] * 2
    pairs = []
    for repeat in range(repeats):
        order = SIDES if repeat % 2 == 0 else SIDES[::-1]
        with ThreadPoolExecutor(2 if together else 1) as pool:
            running = {
                side: pool.submit(run, side, repeat, own, setting) for side, own in zip(order, cores, strict=True)
            }
        curves = {side: future.result() for side, future in running.items()}
        pairs.append((curves["ours"], curves["glue"]))
        print(f"{repeat + 1} of {repeats}: ours {_best(curves['ours']):.2f} %, glue {_best(curves['glue']):.2f} %")
    return pairs


def _best(curve: Curve) -> float:
    return 100 * curve.best[-1] if curve.best else 0.0


def table(pairs: list[tuple[Curve, Curve]], setting: Setting) -> Table:
    """One row for each repeat, the medians last."""
    limit = setting.seconds
    made = Table(
        title=f"Live sweeps of {limit / 60:g} minutes, {setting.faces} train faces, {EPOCHS} epochs for each trial"
    )
    for heading in (
        "",
        "best of ours, %",
        "of the glue, %",
        "trials",
        "epochs",
        "s to the glue's best",
        "of its own",
        "ratio",
    ):
        made.add_column(heading, justify="right")
    ratios = []
    for number, (mine, peer) in enumerate(pairs, 1):
        target = peer.best[-1] if peer.best else 0.0
        took, theirs = mine.reaches(target, limit), peer.reaches(target, limit)
        ratios.append(took / theirs)
        late = "" if mine.best and mine.best[-1] >= target else "> "
        counts = f"{mine.trials} / {peer.trials}", f"{mine.epochs} / {peer.epochs}"
        made.add_row(
            str(number),
            f"{_best(mine):.2f}",
            f"{_best(peer):.2f}",
            *counts,
            f"{late}{took:.0f}",
            f"{theirs:.0f}",
            f"{late}{ratios[-1]:.2f}",
        )
    accuracies = (f"{median(map(_best, side)):.2f}" for side in zip(*pairs, strict=True))
    made.add_row("median", *accuracies, "", "", "", "", f"{median(ratios):.2f}")
    return made


def main() -> None:
    """Compare, or with `--only` be one of the two sweeps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="fer2013.csv")
    parser.add_argument("--faces", type=int, default=6000, help="train on so many faces")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--together", action="store_true", help="both at the same time, on half of the cores each")
    parser.add_argument("--out", type=Path, default=Path("runs/live"), help="what is there is not run again")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    data, seconds = DataOptions(source=asked.data, limit_train=asked.faces), 60 * asked.minutes
    if asked.only:
        os.sched_setaffinity(0, asked.cores)
        {"ours": ours, "glue": glue}[asked.only](asked.out, data, seconds, asked.seed)
        return
    prepare(data)
    setting = Setting(asked.data, asked.faces, seconds, asked.out.resolve())
    console = Console(width=120)
    console.print(table(compare(asked.repeats, asked.together, setting), setting))
    how = "at the same time, on half of the cores each" if asked.together else "in turn, on all cores"
    console.print(f"{how}; {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
