"""Figures of a search: the objective per trial and over each setting, and its cost."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tracking.figures.parts import AMBER, BLUE, ORANGE, as_percent, plain
from tracking.figures.sweep_figures import STATES
from tracking.metrics.pareto import fronts
from tracking.metrics.scores import Interval
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.objectives import AXES, objectives_of
from tracking.record.spans import trial_minutes

_MOST_SETTINGS = 12
_SHADES = LinearSegmentedColormap.from_list("poor to good", ["#BDBDBD", AMBER, ORANGE])


@dataclass(frozen=True)
class Setting:
    """A searched setting. `choices` are those of a categorical one, as text; otherwise values are in low..high."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[str, ...] = ()

    def position(self, value: object) -> float:
        """A value's position on the setting's axis, 0..1; NaN if it is not on the axis."""
        if self.choices:
            text = _text(value)
            return self.choices.index(text) / max(1, len(self.choices) - 1) if text in self.choices else np.nan
        if not isinstance(value, int | float) or self.high <= self.low:
            return 0.5 if isinstance(value, int | float) else np.nan
        low, high, place = (np.log(x) if self.log else x for x in (self.low, self.high, float(value)))
        return float((place - low) / (high - low))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions on the axis and their labels."""
        if self.choices:
            return [(self.position(choice), choice) for choice in self.choices]
        return [(0.0, f"{self.low:.3g}"), (1.0, f"{self.high:.3g}")]


def searched_settings(history: SweepHistory) -> list[Setting]:
    """The searched settings in the space's order. If there are many, those that most trials have.

    Journals of format 1 also have parameters that a fixed setting overrode; these are left out.
    """
    fixed = {name.rpartition(".")[2] for name in history.started.spec.get("settings", {})}
    distributions: dict[str, str] = {}
    drawn: Counter[str] = Counter()
    for trial in history.trials.values():
        distributions |= trial.started.distributions
        drawn.update(name for name in trial.started.params if name.rpartition(".")[2] not in fixed)
    kept = {name for name, _ in drawn.most_common(_MOST_SETTINGS)}
    return [_setting(name, text) for name, text in distributions.items() if name in kept]


def objective_figure(history: SweepHistory, title: str) -> Figure:
    """Each trial's best `val_accuracy` with its final state, and the best so far."""
    figure, axes = _frame(title, 3.6)
    scored = [(trial, value) for trial in history.trials.values() if (value := trial.best_accuracy) is not None]
    for state, (colour, marker) in STATES.items():
        of_state = [(trial.number, value) for trial, value in scored if trial.state == state]
        if of_state:
            label = f"{state}, {len(of_state)}"
            axes.plot(*zip(*of_state, strict=True), marker, color=colour, markersize=6, label=label)
    so_far = accumulate((value for _, value in scored), max)
    numbers = [trial.number for trial, _ in scored]
    axes.step(numbers, list(so_far), where="post", color="black", linewidth=1.2, label="best so far")
    axes.set_xlabel("trial")
    _as_accuracy(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if scored:
        axes.legend(frameon=False, ncols=6, loc="lower right", bbox_to_anchor=(1.0, 1.0), handletextpad=0.3)
    return figure


def parallel_figure(history: SweepHistory, title: str) -> Figure:
    """One line per trial through its settings, orange for a high best `val_accuracy`."""
    settings, scored = searched_settings(history), _drawn_trials(history)
    figure, axes = _frame(title, 4.8)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.24)
    values = np.array([value for _, value in scored]) if scored else np.zeros(0)
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    target = Setting("val accuracy", float(low), float(high))
    rows = np.array(
        [
            [*(one.position(trial.started.params.get(one.name)) for one in settings), target.position(value)]
            for trial, value in scored
        ]
    ).reshape(len(scored), len(settings) + 1)
    columns = np.arange(rows.shape[1])
    order = np.argsort(values)
    lines = LineCollection(
        [np.column_stack([columns, rows[index]]) for index in order], cmap=_SHADES, linewidths=1.3, alpha=0.75
    )
    lines.set_array(values[order])
    axes.add_collection(lines)
    for column, one in enumerate([*settings, target]):
        axes.axvline(column, color="black", linewidth=0.8, alpha=0.6)
        for place, text in one.ticks if one is not target else [(0.0, f"{low:.1%}"), (1.0, f"{high:.1%}")]:
            axes.annotate(text, (column, place), (3, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_xlim(-0.1, len(settings) + 0.55)
    axes.set_ylim(-0.06, 1.06)
    names = [*(one.name for one in settings), target.name]
    axes.set_xticks(columns, names, rotation=30, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks([])
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    return figure


def slices_figure(history: SweepHistory, title: str) -> Figure:
    """Best `val_accuracy` over each searched setting, with the trials' final states."""
    settings, scored = searched_settings(history), _drawn_trials(history)
    rows = max(1, -(-len(settings) // 4))
    figure = Figure(figsize=(10.5, 0.7 + 2.3 * rows))
    height = figure.get_figheight()
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.5 / height, bottom=0.55 / height, hspace=0.55, wspace=0.12)
    grid = figure.subplots(rows, 4, sharey=True, squeeze=False).ravel()
    for axes, one in zip(grid, settings, strict=False):
        for state, (colour, marker) in STATES.items():
            points = [
                (one.position(trial.started.params[one.name]), value)
                for trial, value in scored
                if trial.state == state and one.name in trial.started.params
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=4, alpha=0.8)
        axes.set_xticks(*zip(*one.ticks, strict=True), fontsize=8)
        axes.set_xlim(-0.12, 1.12)
        axes.set_xlabel(one.name + (" (log)" if one.log else ""), fontsize=9)
        as_percent(axes.yaxis)
        plain(axes)
    for axes in grid[len(settings) :]:
        axes.set_visible(False)
    for axes in grid[::4]:
        axes.set_ylabel("val accuracy")
    return figure


def importances_figure(importances: Mapping[str, Interval], title: str) -> Figure:
    """The share of the objective's variance that each setting explains, largest first, with intervals."""
    figure, axes = _frame(title, 1.3 + 0.3 * len(importances))
    names, shares = list(importances), [share.value for share in importances.values()]
    reach = np.array([(max(one.value - one.low, 0), max(one.high - one.value, 0)) for one in importances.values()]).T
    figure.subplots_adjust(left=0.2)
    bars = axes.barh(names, shares, xerr=reach, color=BLUE, ecolor="black", height=0.7)
    labels = [f"{one.value:.0%} ({100 * one.low:.0f} to {100 * one.high:.0f})" for one in importances.values()]
    axes.bar_label(bars, labels, padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("share of the objective's variance")
    as_percent(axes.xaxis)
    plain(axes)
    return figure


def pareto_figure(history: SweepHistory, parameters: Mapping[int, int], title: str) -> Figure:
    """Best `val_accuracy` against each cost, with the Pareto front of each pair.

    The costs are worker minutes, `parameters` (trial → count) and the sweep's other objectives.
    """
    costs = {
        "minutes of training": {number: trial_minutes(trial) for number, trial in history.trials.items()},
        "million parameters": {number: count / 1e6 for number, count in parameters.items()},
    }
    objectives = objectives_of(history.spec)
    for name in ("seconds", "latency"):
        if name in objectives:
            place = objectives.index(name) - 1
            costs[AXES[name]] = {number: trial.costs(objectives)[place] for number, trial in history.trials.items()}
    figure = Figure(figsize=(10.5, 4.2))
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.09, right=0.985, top=0.83, bottom=0.13, wspace=0.1)
    panels = figure.subplots(1, len(costs), sharey=True)
    scored = [(trial, value) for trial in history.trials.values() if (value := trial.best_accuracy) is not None]
    for axes, (label, cost) in zip(panels, costs.items(), strict=True):
        known = [
            (trial, cost[trial.number], value) for trial, value in scored if np.isfinite(cost.get(trial.number, np.nan))
        ]
        _draw_front(axes, known)
        axes.set_xlabel(label)
        if label != "minutes of training":
            axes.set_xlim(0, 1.08 * max((price for _, price, _ in known), default=1.0))
    left = panels[0]
    left.set_ylabel("val accuracy")
    as_percent(left.yaxis)
    if scored:
        left.legend(frameon=False, ncols=6, loc="lower left", bbox_to_anchor=(-0.02, 1.0), handletextpad=0.3)
    return figure


def _draw_front(axes: Axes, trials: Sequence[tuple[TrialHistory, float, float]]) -> None:
    for state, (colour, marker) in STATES.items():
        of_state = [(cost, value) for trial, cost, value in trials if trial.state == state]
        if of_state:
            axes.plot(*zip(*of_state, strict=True), marker, color=colour, markersize=6, alpha=0.85, label=state)
    is_best = fronts(np.array([(value, -cost) for _, cost, value in trials]).reshape(-1, 2)) == 0
    front = sorted(np.flatnonzero(is_best).tolist(), key=lambda place: trials[place][1])
    on_it = [trials[index] for index in front]
    axes.step(
        [cost for _, cost, _ in on_it], [value for *_, value in on_it], where="post", color="black", linewidth=1.2,
        label="Pareto front",
    )  # fmt: skip
    for trial, cost, value in on_it[-6:]:
        axes.annotate(str(trial.number), (cost, value), (4, 4), textcoords="offset points", fontsize=9)
    plain(axes)


def _setting(name: str, text: str) -> Setting:
    found = json.loads(text)["attributes"]
    if "choices" in found:
        return Setting(name, choices=tuple(_text(choice) for choice in found["choices"]))
    return Setting(name, float(found["low"]), float(found["high"]), bool(found.get("log", False)))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _drawn_trials(history: SweepHistory) -> list[tuple[TrialHistory, float]]:
    """The trials that the sampler drew, with their accuracies; without baselines."""
    drawn = [trial for trial in history.trials.values() if trial.started.params]
    return [(trial, value) for trial in drawn if (value := trial.best_accuracy) is not None]


def _frame(title: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10.5, height))
    figure.suptitle(title, fontsize=12)
    figure.subplots_adjust(left=0.09, right=0.985, top=1 - 0.75 / height, bottom=0.55 / height)
    axes = figure.subplots()
    plain(axes)
    return figure, axes


def _as_accuracy(axes: Axes) -> None:
    axes.set_ylabel("val accuracy")
    as_percent(axes.yaxis)
