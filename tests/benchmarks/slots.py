"""How long short trials hold their slots: a sweep of LeNets, real Ray, pictures on, nothing else at its end.

    python -m tests.benchmarks.slots [--trials 6] [--limit-train 700]

Prints JSON: `wall`, seconds from the first trial's start to the end of `run_sweep`; `slot`, seconds from a trial's
start to its end in the journal, summed over the trials; `train`, seconds of those in epochs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from fer_data import DataOptions
from fer_models import LeNetConfig, Recipe
from sweeps.config import TrialConfig
from sweeps.space import Space
from sweeps.sweep import run_sweep
from tests.stand_ins import QUIET

SPACE = Space(
    suggest=lambda trial: TrialConfig(
        net=LeNetConfig(), recipe=Recipe(lr=trial.suggest_float("lr", 1e-4, 1e-3, log=True), batch_size=64)
    ),
    max_epochs=1,
    first_rung_epochs=2,
    name="slots",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--limit-train", type=int, default=700)
    given = parser.parse_args()
    data = DataOptions(limit_train=given.limit_train)
    with tempfile.TemporaryDirectory(prefix="slots-") as folder:
        done = run_sweep(SPACE, data=data, trials=given.trials, out=Path(folder), name="slots", **QUIET)
        ended = time.time()
    spans = [(trial.started.time_ms, trial.end.time_ms) for trial in done if trial.end]
    assert len(spans) == given.trials
    found = {
        "wall": ended - min(start for start, _ in spans) / 1e3,
        "slot": sum(end - start for start, end in spans) / 1e3,
        "train": sum(epoch.metrics["epoch_seconds"] for trial in done for epoch in trial.epochs),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
