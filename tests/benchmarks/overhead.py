"""What a sweep costs beside the training: ours and the peers', measured in turns on one machine, as one table.

    python -m tests.benchmarks.overhead [--quick] [--repeats N] [--only trials|startup|step]

Wants an idle machine. The whole takes about 45 minutes on 2 cores, `--quick` about 8, with numbers that only
show that it runs. The peer of the sweep is Ray Tune with OptunaSearch, ASHA and MLflowLoggerCallback as their
documentation shows; the peer of the training step is a bare loop over tensors that lie ready in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from fer_data import prepare
from fer_models.configs.precision import device_kind
from tests import ROOT
from tests.benchmarks.burn import TRIAL_CORE_SECONDS
from tests.benchmarks.rows import Row, marginal_core_seconds, table

CORES = len(os.sched_getaffinity(0))
_LONGEST_RUN_SECONDS = 3600.0
_PIPED_WIDTH = 180
_console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)
_progress = Console(stderr=True, highlight=False)

OURS = "our_sweep"
TUTORIAL = "tutorial_sweep"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    repeats: int
    trials: tuple[int, int]
    warm_up: bool
    step: tuple[int, int, int]
    """Repeats, iterations of each, and images of a batch."""


FULL = Size(repeats=3, trials=(40, 80), warm_up=True, step=(15, 10, 128))
QUICK = Size(repeats=1, trials=(10, 20), warm_up=False, step=(1, 2, 16))


@dataclass(frozen=True)
class Clocks:
    """Seconds from the start of a process to its end, and to the first step of its first trial."""

    whole: float
    first_step: float


def main() -> None:
    given = _arguments()
    size = QUICK if given.quick else FULL
    size = replace(size, repeats=given.repeats or size.repeats)
    sections = {"trials": trial_rows, "startup": startup_rows, "step": step_rows}
    chosen = [given.only] if given.only else list(sections)
    load = os.getloadavg()[0]
    prepare(None)
    rows = [row for name in chosen for row in sections[name](size)]
    _console.print(table(rows, "Overhead: ours and the peers', measured in turns"))
    _console.print(_circumstances(size, load))


def trial_rows(size: Size) -> Iterator[Row]:
    """What one more trial of a sweep costs, and one more of the peers'."""
    systems = {
        OURS: (OURS,),
        "Ray tutorial, new actors": (TUTORIAL,),
        "Ray tutorial, reuse_actors": (TUTORIAL, "--reuse-actors"),
    }
    costs = _in_turns(systems, size.repeats, lambda command: _marginal(command, size.trials))
    for peer in list(systems)[1:]:
        yield Row(
            section="overhead, core-seconds a trial",
            measure="a further trial of one core-second",
            peer=peer,
            ours=costs[OURS],
            peers=costs[peer],
            digits=2,
            target="at most 0.3",
        )


def startup_rows(size: Size) -> Iterator[Row]:
    """How long it takes from the start of a process to the first step of its first trial."""
    systems = {
        f"{name}, {body}": (*command, "--body", body)
        for body in ("burn", "lenet")
        for name, command in {"ray": (OURS,), "inline": (OURS, "--runner", "inline"), "peer": (TUTORIAL,)}.items()
    }
    if size.warm_up:
        _in_turns(systems, 1, _first_step)
    seconds = _in_turns(systems, size.repeats, _first_step)
    bodies = {"burn": "without torch", "lenet": "LeNet on synthetic faces"}
    for runner, target in (("ray", "at most 10"), ("inline", "at most 3")):
        for body, what in bodies.items():
            yield Row(
                section="start-up, seconds to the first step",
                measure=f"--runner {runner}, {what}",
                peer="Ray tutorial",
                ours=seconds[f"{runner}, {body}"],
                peers=seconds[f"peer, {body}"],
                digits=1,
                target=target,
            )


def step_rows(size: Size) -> Iterator[Row]:
    """How fast `fit` trains beside a loop with nothing around it."""
    _say("training step")
    names = ("--repeats", "--iterations", "--batch-size")
    arguments = [word for pair in zip(names, map(str, size.step), strict=True) for word in pair]
    with tempfile.TemporaryFile("w+") as output:
        _run(("step", *arguments), output.fileno(), ROOT)
        output.seek(0)
        rates = json.load(output)
    for net, measured in rates.items():
        yield Row(
            section="training, images a second of one thread",
            measure=net,
            peer="bare loop, tensors in memory",
            ours=tuple(measured["ours"]),
            peers=tuple(measured["peer"]),
            digits=0,
            target="at least 0.90 of the peer",
        )


def _in_turns(
    systems: dict[str, tuple[str, ...]], repeats: int, measure: Callable[[tuple[str, ...]], float]
) -> dict[str, tuple[float, ...]]:
    """`repeats` rounds over all systems, so that a slow minute of the machine meets them all."""
    found: dict[str, list[float]] = {name: [] for name in systems}
    for repeat in range(repeats):
        for name, command in systems.items():
            _say(f"{name}, {repeat + 1} of {repeats}")
            found[name].append(measure(command))
    return {name: tuple(values) for name, values in found.items()}


def _marginal(command: tuple[str, ...], trials: tuple[int, int]) -> float:
    few, many = (_clock(command, count).whole for count in trials)
    return marginal_core_seconds(CORES, (few, many), trials, TRIAL_CORE_SECONDS)


def _first_step(command: tuple[str, ...]) -> float:
    return _clock(command, CORES).first_step


def _clock(command: tuple[str, ...], trials: int) -> Clocks:
    """Run a sweep in a fresh process and a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="fer-benchmark-") as folder, tempfile.TemporaryFile() as output:
        started = time.time()
        _run((command[0], folder, "--trials", str(trials), *command[1:]), output.fileno(), Path(folder))
        ended = time.time()
        first_step = float((Path(folder) / "first_step").read_text())
    clocks = Clocks(whole=ended - started, first_step=first_step - started)
    _say(f"  {trials} trials: {clocks.whole:.1f} s, to the first step {clocks.first_step:.1f} s")
    return clocks


def _run(command: tuple[str, ...], output: int, folder: Path) -> None:
    """Run a module of this package in `folder`, where MLflow's tutorial leaves artifacts.

    The output goes to a file, since a pipe would wait for Ray's daemons too.
    """
    module, *arguments = command
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [sys.executable, "-m", f"{__package__}.{module}", *arguments],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=errors,
            timeout=_LONGEST_RUN_SECONDS,
            check=False,
        )
        errors.seek(0)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{errors.read()[-4000:]}")


def _circumstances(size: Size, load: float) -> str:
    packages = ("torch", "ray", "optuna", "mlflow", "numpy")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    repeats, batches, batch_size = size.step
    few, many = size.trials
    return (
        f"{platform.system()} {platform.machine()}, {_processor()} ({device_kind('cpu')}), {CORES} cores, "
        f"load {load:.1f} at the start; Python {platform.python_version()}, {versions}. Median \\[least–most] of "
        f"n = {size.repeats}; training step: n = {repeats}, each {batches} batches of {batch_size}, in seconds of "
        f"processor time. A trial burns {TRIAL_CORE_SECONDS:g} core-second in 5 reports; what it costs beside that is "
        f"(cores × wall − training) of {many} trials less that of {few}, over {many - few}. Nothing is pruned; every "
        "store is new and empty."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _say(text: str) -> None:
    _progress.print(text, style="dim")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overhead")
    parser.add_argument("--quick", action="store_true", help="once and small: shows that it runs")
    parser.add_argument("--repeats", type=int, help="of whole runs (default 3)")
    parser.add_argument("--only", choices=["trials", "startup", "step"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
