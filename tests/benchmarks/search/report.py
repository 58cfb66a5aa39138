"""The benchmark's one table, and regret over time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.search.measures import GRID, interval
from tests.benchmarks.search.methods import DEFAULT, METHODS

_TARGETS = (26, 28, 30, 32, 34, 35, 36, 37, 37.5, 38, 38.5)
_PEERS = ("one epoch (i-Epoch)", "Ray ASHA + OptunaSearch")


def print_table(results: dict[str, Any], budgets: dict[int, float], configurations: int) -> None:
    """One row per method and number of workers."""
    table = Table(title=f"search on {configurations} recorded configurations; means, in brackets 95 % intervals")
    for heading in ("workers", "method", "n", "time to target / T", "epochs", "missed", "best at T/2", "held out",
                    "wrong prunings", "trials"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for workers, name, sweeps in _rows(results):
        budget = budgets[workers]
        times = np.minimum([sweep["seconds"] for sweep in sweeps], budget) / budget
        epochs = [sweep["epochs"] for sweep in sweeps if np.isfinite(sweep["epochs"])]
        table.add_row(
            str(workers), name, str(len(sweeps)), _said(times.tolist(), 2), f"{np.median(epochs):.0f}" if epochs else "",
            f"{np.mean([not np.isfinite(sweep['seconds']) for sweep in sweeps]):.0%}",
            _said([100 * sweep["best_val"] for sweep in sweeps], 1), _said([100 * sweep["held_out"] for sweep in sweeps], 1),
            f"{np.mean([sweep['wrong_prunings'] for sweep in sweeps]):.1f} of {np.mean([sweep['pruned'] for sweep in sweeps]):.0f}",
            f"{np.mean([sweep['trials'] for sweep in sweeps]):.0f}",
        )  # fmt: skip
    Console(width=170).print(table)
    for workers, aim in results["targets"].items():
        print(f"{workers} workers: T {budgets[int(workers)]:.0f} s, target {aim:.2%}")


def print_targets(results: dict[str, Any]) -> None:
    """The default's mean time to several accuracies, divided by the peers'. A sweep that does not reach one by T/2 counts
    as T/2."""
    table = Table(title="the default's time to a val accuracy, divided by the peer's, in brackets 95 % intervals")
    table.add_column("val accuracy", justify="right")
    columns = []
    for workers, name, sweeps in _rows(results):
        ours = results["sweeps"].get(f"{workers}/{DEFAULT}")
        if name in _PEERS and ours:
            table.add_column(f"{workers} workers: {name}", justify="right")
            columns.append((ours, sweeps))
    for target in _TARGETS:
        table.add_row(f"{target:g} %", *(_ratio(ours, theirs, target / 100) for ours, theirs in columns))
    Console(width=170).print(table)


def _ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], target: float) -> str:
    def times(sweeps: list[dict[str, Any]]) -> list[float]:
        reached = np.array([sweep["curve"] for sweep in sweeps]) >= target
        return (GRID / 2)[np.where(reached.any(1), reached.argmax(1), -1)].tolist()

    found = interval(lambda one, other: float(one.mean() / other.mean()), times(ours), times(theirs))
    return "{:.2f} [{:.2f}–{:.2f}]".format(*found)


def _rows(results: dict[str, Any]) -> Iterator[tuple[int, str, list[dict[str, Any]]]]:
    order = list(METHODS)
    found = [(int(workers), name) for workers, _, name in (key.partition("/") for key in results["sweeps"])]
    for workers, name in sorted(found, key=lambda one: (one[0], order.index(one[1]))):
        yield workers, name, results["sweeps"][f"{workers}/{name}"]


def _said(values: list[float], digits: int) -> str:
    mean, low, high = interval(np.mean, values)
    return f"{mean:.{digits}f} [{low:.{digits}f}–{high:.{digits}f}]"


def plot(results: dict[str, Any], target: Path) -> None:
    """The best val accuracy over time, mean of all sweeps, one panel per number of workers."""
    import matplotlib.pyplot as plt

    numbers = sorted({workers for workers, _, _ in _rows(results)})
    names = sorted({name for _, name, _ in _rows(results)}, key=lambda name: (not name.startswith("ours"), name))
    figure, panels = plt.subplots(1, len(numbers), figsize=(5 * len(numbers), 5), squeeze=False, layout="constrained")
    lines = {}
    for panel, workers in zip(panels[0], numbers, strict=True):
        for count, name, sweeps in _rows(results):
            if count == workers:
                mean = 100 * np.mean([sweep["curve"] for sweep in sweeps], axis=0)
                place, ours = names.index(name), name.startswith("ours")
                style = {
                    "color": f"C{place % 10}",
                    "linestyle": "-" if place < 10 else "--",
                    "linewidth": 2 if ours else 1,
                }
                (lines[name],) = panel.plot(GRID / 2, mean, label=name, **style)
        panel.axhline(100 * results["targets"][str(workers)], color="grey", linestyle=":")
        panel.set(title=f"{workers} worker{'s' * (workers > 1)}", xlabel="time / T", ylabel="best val accuracy, %")
        panel.set_ylim(25, None)
    figure.legend(handles=[lines[name] for name in names], loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(target, dpi=110)
