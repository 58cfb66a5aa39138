"""The peer: Ray Tune, Optuna and MLflow glued together as Ray's documentation shows.

    python -m tests.benchmarks.tutorial_sweep FOLDER --trials N [--reuse-actors] [--body burn|lenet]

See "Using MLflow with Tune", "Running Tune experiments with Optuna" and "How to use ASHA" there.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from tests.benchmarks import burn


def main() -> None:
    given = _arguments()
    folder = given.folder.resolve()
    # The one liberty taken: without an address Ray may join a cluster that another program left behind.
    ray.init(address="local", num_cpus=len(os.sched_getaffinity(0)))
    trainable = {"burn": _burn, "lenet": _lenet}[given.body]
    tuner = tune.Tuner(
        tune.with_resources(partial(trainable, first_step=folder / "first_step"), {"cpu": 1}),
        param_space={
            "lr": tune.loguniform(1e-4, 3e-3),
            "momentum": tune.uniform(0.85, 0.95),
            "weight_decay": tune.loguniform(1e-5, 3e-3),
            "batch_size": tune.choice([32, 64, 128]),
            "dropout": tune.uniform(0.0, 0.6),
        },
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            search_alg=OptunaSearch(),
            # A grace period of the whole trial, so that nothing is given up and the work is equal.
            scheduler=ASHAScheduler(max_t=burn.EPOCHS, grace_period=burn.EPOCHS),
            num_samples=given.trials,
            reuse_actors=given.reuse_actors,
        ),
        run_config=tune.RunConfig(
            name="tutorial",
            storage_path=str(folder / "results"),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="tutorial", save_artifact=True
                )
            ],
        ),
    )
    results = tuner.fit()
    if results.num_errors or len(results) != given.trials:
        raise SystemExit(f"{len(results)} of {given.trials} trials ran, {results.num_errors} with errors")


def _burn(config: dict[str, Any], first_step: Path) -> None:
    for _, metrics in burn.train(first_step):
        tune.report(metrics)


def _lenet(config: dict[str, Any], first_step: Path) -> None:
    """Torch, faces and net made ready up to the first step, then the usual work."""
    import torch

    from fer_data import open_cached, prepare
    from fer_models import LeNetConfig
    from fer_models.nets.registry import build

    faces = open_cached(prepare(None))
    generator = torch.Generator().manual_seed(0)
    net = build(LeNetConfig(), classes=len(faces.classes), mean_image=faces.mean_image(), generator=generator)
    torch.optim.SGD(net.parameters(), lr=config["lr"], momentum=config["momentum"])
    torch.tensor(faces.train.images[:128]).float().unsqueeze(1)
    _burn(config, first_step)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--reuse-actors", action="store_true")
    parser.add_argument("--body", choices=["burn", "lenet"], default="burn")
    return parser.parse_args()


if __name__ == "__main__":
    main()
