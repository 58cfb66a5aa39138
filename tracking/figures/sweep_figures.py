"""Figures of a whole sweep: when each trial ran, how it ended, its cost, and the best curves."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tracking.figures.parts import AMBER, BLUE, COLOURS, GREEN, GREY, MARKERS, ORANGE, PURPLE, SKY, as_percent, plain
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.spans import MINUTE_MS, attempt_spans, trial_minutes

STATES = {
    "done": (BLUE, "o"),
    "pruned": (AMBER, "|"),
    "failed": (ORANGE, "x"),
    "stopped": (GREY, "s"),
    "waiting": (SKY, "D"),
    "paused": (PURPLE, "P"),
    "running": (GREEN, ">"),
}
"""Final state of a trial → its colour and marker."""

_MOST_EPOCH_MARKS = 2000
_LEGEND_WIDTH = 36
"""Number of characters per line of the legend beside the curves."""


def timeline_figure(history: SweepHistory, title: str) -> Figure:
    """Each trial's attempts over wall time, with one tick per epoch and the trial's final state."""
    trials = list(history.trials.values())
    figure = Figure(figsize=(10.5, min(9.0, 2.2 + 0.16 * len(trials))))
    figure.suptitle(title, fontsize=12)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.07, right=0.985, top=1 - 0.75 / height, bottom=0.55 / height)
    axes = figure.subplots()
    begin = history.started.time_ms
    for state in STATES:
        _draw_state(axes, state, [trial for trial in trials if trial.state == state], begin)
    if sum(len(trial.epochs) for trial in trials) <= _MOST_EPOCH_MARKS:
        _mark_epochs(axes, trials, begin)
    axes.set_xlabel("minutes since the sweep began")
    axes.set_ylabel("trial")
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    if trials:
        axes.legend(frameon=False, ncols=len(STATES), loc="lower right", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    return figure


def cost_figure(history: SweepHistory, title: str) -> Figure:
    """Worker minutes of each trial, coloured by its final state, and their sum per state."""
    figure = Figure(figsize=(10.5, 3.4))
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.78, bottom=0.16)
    axes = figure.subplots()
    total = sum(trial_minutes(trial) for trial in history.trials.values()) or 1.0
    for state, (colour, _) in STATES.items():
        of_state = [trial for trial in history.trials.values() if trial.state == state]
        if of_state:
            minutes = [trial_minutes(trial) for trial in of_state]
            label = f"{state}: {sum(minutes):.0f} min, {sum(minutes) / total:.0%}"
            axes.bar([trial.number for trial in of_state], minutes, width=0.8, color=colour, label=label)
    axes.set_xlabel("trial")
    axes.set_ylabel("minutes")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    if history.trials:
        axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure


def best_curves_figure(trials: Sequence[TrialHistory], names: Sequence[str], title: str) -> Figure:
    """`val_accuracy` over the epochs of some trials; baselines are dashed. `names` are for the legend."""
    figure = Figure(figsize=(10.5, 4.6))
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.09, right=0.7, top=0.9, bottom=0.12)
    axes = figure.subplots()
    for index, (trial, name) in enumerate(zip(trials, names, strict=True)):
        axes.plot(
            [epoch.epoch for epoch in trial.epochs],
            [epoch.metrics.get("val_accuracy", np.nan) for epoch in trial.epochs],
            color=COLOURS[index % len(COLOURS)],
            linestyle="--" if trial.started.baseline else "-",
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            markevery=max(1, len(trial.epochs) // 12),
            label=fill(name, _LEGEND_WIDTH),
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("val accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    as_percent(axes.yaxis)
    plain(axes)
    if trials:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3)
    return figure


def _draw_state(axes: Axes, state: str, trials: Sequence[TrialHistory], begin: int) -> None:
    if not trials:
        return
    colour, marker = STATES[state]
    spans = {trial.number: attempt_spans(trial) for trial in trials}
    for number, of_trial in spans.items():
        starts, ends = (_minutes(times, begin) for times in zip(*of_trial, strict=True)) if of_trial else ([], [])
        axes.hlines([number] * len(starts), starts, ends, color=colour, linewidth=3, alpha=0.75)
    last = [max((end for _, end in spans[trial.number]), default=trial.started.time_ms) for trial in trials]
    label = f"{state}, {len(trials)}"
    axes.plot(_minutes(last, begin), list(spans), marker, color=colour, markersize=7, label=label)


def _mark_epochs(axes: Axes, trials: Sequence[TrialHistory], begin: int) -> None:
    marks = [(epoch.time_ms, trial.number) for trial in trials for epoch in trial.epochs]
    if marks:
        times, rows = zip(*marks, strict=True)
        axes.plot(_minutes(times, begin), rows, "|", color="black", alpha=0.45, markersize=4, markeredgewidth=0.8)


def _minutes(times_ms: Sequence[int], begin_ms: int) -> list[float]:
    return [(time - begin_ms) / MINUTE_MS for time in times_ms]
