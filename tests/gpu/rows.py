"""The reports' rows that want a GPU, trained by their own recipes, and runs of the compact net; several at once.

    python -m tests.gpu.rows --cache FOLDER --out DIR [--seconds 360] [--at-once 16] [--only lenet_inv,vgg_small]
    python -m tests.gpu.rows --device cpu --quick

Each row is a sweep of one trial, DIR/ROW, with the journal of any sweep: the same command continues with what a limit
cut short. A row that is done is tested on the test split, once. Needs torch, numpy, pydantic and optuna; no network, no Ray,
no MLflow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

from fer_data import DataOptions, open_cached, prepare
from fer_models.configs.precision import device_kind, fastest
from sweeps.after.test_split import test_run
from sweeps.config import TrialConfig
from sweeps.driver.director import Director
from sweeps.driver.runner import InlineRunner
from sweeps.runs import Run
from sweeps.search.study import Study
from sweeps.spaces.rows import ROWS, Row
from sweeps.spec import SweepSpec
from sweeps.trial.run_trial import run_trial
from tests.gpu.mps import mps
from tracking.record.events import SweepEnded, SweepStarted
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal, read
from tracking.record.layout import SweepFolder

# The longest first, in this order; the other rows of the table follow.
FIRST = (
    "resnet50_v1_224", "alexnet_2", "googlenet", "inception_v3_96", "alexnet_1", "alexnet_3", "vgg16_cut_hed",
    "vgg16_cut_hed_finetuned", "vgg16_cut_hed_whole", "compact_mixup", "compact_cutmix", "compact_wide", "record-60",
    "vgg_small_tuned", "vgg_small", "deep_cnn_as_it_ran", "deep_cnn_augmented", "deep_cnn_plain",
)  # fmt: skip
IN_ORDER = list(dict.fromkeys([*FIRST, *ROWS]))


def main() -> int:
    given = _arguments()
    if given.row:
        return _train(given)
    names = given.only or IN_ORDER
    deadline = time.time() + given.seconds
    with contextlib.nullcontext() if given.no_mps else mps() as environment:
        print(f"{len(names)} rows, {given.at_once} at once, {'with' if environment else 'without'} MPS", flush=True)
        _all_of(names, given, deadline, dict(environment or os.environ))
    _table(names, given.out)
    return 0


def _all_of(names: list[str], given: argparse.Namespace, deadline: float, environment: dict[str, str]) -> None:
    """Begin the rows in order as places come free; end what the deadline finds running (its journal is whole)."""
    waiting, running = list(names), {}
    while (waiting or running) and time.time() < deadline:
        while waiting and len(running) < given.at_once:
            name = waiting.pop(0)
            log = (given.out / f"{name}.log").open("w")
            words = [sys.executable, "-m", "tests.gpu.rows", *sys.argv[1:], "--row", name, "--deadline", str(deadline)]
            running[name] = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        time.sleep(0.5)
        running = {name: process for name, process in running.items() if process.poll() is None}
    for process in running.values():
        process.kill()
    for process in running.values():
        process.wait()


def _train(given: argparse.Namespace) -> int:
    row = ROWS[given.row]
    made = row.as_space(given.row)
    cache = _cache(given, row)
    faces = open_cached(cache)
    epochs = 1 if given.quick else row.epochs
    baseline = made.baselines[0]
    baseline = replace(baseline, config=_resolved(baseline.config, given.device))
    space = replace(made, baselines=[baseline], max_epochs=epochs)
    spec = SweepSpec(
        name=given.row, space=given.row, data=DataOptions(source=given.data, classes=row.classes or None),
        dataset=faces.name, fingerprint=faces.fingerprint, synthetic=faces.synthetic, classes=faces.classes,
        faces=str(cache), trials=1, max_epochs=epochs, baselines={baseline.name: baseline.reported},
        baseline_epochs=(epochs,), seed=0, figures=False, runner="inline", device=given.device, threads=given.threads,
    )  # fmt: skip
    folder = SweepFolder(given.out / given.row).create()
    with hold_folder(folder.root), Journal.open(folder.journal) as journal:
        events = list(read(folder.journal))
        if not events:
            opening = SweepStarted(
                sweep_id=uuid.uuid4().hex, name=spec.name, space=space.name, spec=spec.model_dump(mode="json")
            )
            journal.append(opening)
            events = [opening]
        history = SweepHistory.replay(events)
        study = Study(folder.study_log, space, spec.seed, events)
        budget = max(1.0, given.deadline - time.time()) if given.deadline else None
        director = Director(folder, spec, space, history, journal, study, time_budget_seconds=budget)
        InlineRunner().run(director, run_trial)
        if not history.unfinished and not history.finished:
            journal.append(SweepEnded(done=history.count("done"), failed=history.count("failed")))
    history = SweepHistory.load(folder.journal)
    run = _CachedRun(folder, history, history.trials[0])
    if run.trial.state == "done" and not run.trial.tests:
        outcome = test_run(run, again=False)
        print(outcome)
    return 0


class _CachedRun(Run):
    """A run whose faces are those of the cache folder that it was trained on: the source may be elsewhere."""

    def _cache(self) -> Path:
        return Path(self.spec.faces)


def _cache(given: argparse.Namespace, row: Row) -> Path:
    if given.cache is None:
        return prepare(DataOptions(source=given.data, classes=row.classes or None))
    if not row.classes:
        return Path(given.cache)
    from fer_data.cache.cache_folder import keep, open_with_all_soft_labels
    from fer_data.cache.subsets import take_subsets

    return keep(take_subsets(open_with_all_soft_labels(given.cache), DataOptions(classes=row.classes)))


def _resolved(config: TrialConfig, device: str) -> TrialConfig:
    precision, memory_format = fastest(config.net.name, device_kind(device))
    return config.model_copy(update={"precision": precision, "memory_format": memory_format})


def _table(names: list[str], out: Path) -> None:
    print(f"{'row':26s} {'state':8s} {'epochs':>8s} {'val':>7s} {'test':>7s} {'leak-free':>9s} {'seconds':>8s}  report")
    for name in names:
        journal = out / name / "journal.jsonl"
        if not journal.is_file():
            print(f"{name:26s} not begun")
            continue
        history = SweepHistory.load(journal)
        trial = history.trials.get(0)
        best = trial.best_epoch() if trial else None
        if trial is None or best is None:
            print(f"{name:26s} no epoch{f': {trial.state}: {trial.end.reason}' if trial and trial.end else ''}")
            continue
        tests = trial.tests[-1].metrics if trial.tests else {}
        shown = [f"{tests[key]:.2%}" if key in tests else "" for key in ("test_accuracy", "test_accuracy_leak_free")]
        seconds = sum(epoch.metrics["epoch_seconds"] for epoch in trial.epochs)
        length = f"{trial.last_epoch}/{trial.started.epochs}"
        reported = history.started.spec.get("baselines", {}).get(trial.started.baseline or "", "")
        print(
            f"{name:26s} {trial.state:8s} {length:>8s} {best.metrics['val_accuracy']:7.2%} {shown[0]:>7s} "
            f"{shown[1]:>9s} {seconds:8.0f}  {trial.started.baseline}: {reported}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="csv, folder or LMDB of faces (default: the synthetic faces)")
    parser.add_argument("--cache", type=Path, help="a folder of converted faces from FER_CACHE")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: one epoch per row")
    parser.add_argument("--seconds", type=float, default=360, help="end what runs after this long, resumable")
    parser.add_argument("--at-once", type=int, default=16, help="rows at once")
    parser.add_argument("--no-mps", action="store_true", help="start no Multi-Process Service")
    parser.add_argument("--threads", type=int, default=1, help="threads per row")
    parser.add_argument("--only", type=lambda text: text.split(","), help="these rows alone")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    return given


if __name__ == "__main__":
    sys.exit(main())
