"""Verbs that show sweeps from another terminal: status, list and logs."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fer_common.flags import Flag
from sweeps.cli import cluster_verbs
from sweeps.cli.arguments import OfTrials, OnCluster, SweepName
from sweeps.cli.console import console, is_unread
from sweeps.cli.overview import all_sweeps, sweep_row
from sweeps.cli.progress import STATES, best_line, event_line, trial_name, trials_begun
from sweeps.cli.tables.forecasts import forecast_table, forecast_text
from sweeps.cli.tables.leaderboard import acts, failures, leaderboard, pareto_table
from sweeps.cli.tables.overview import as_json, state_text, table_of, time_left
from sweeps.errors import InputError
from sweeps.runs import find_run, open_sweep, sweep_folder
from sweeps.search.forecast import forecasts
from sweeps.spec import recorded_spec
from sweeps.trial.messages import OBJECTIVE
from tracking.record.events import Event
from tracking.record.folder_lock import folder_holder
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.journal import read_from
from tracking.record.layout import SweepFolder

_BARS = "▁▂▃▄▅▆▇█"
_HEADINGS = ("trial", "state", "epoch", "val_accuracy", "best", "curve", "forecast", "reason")
_WIDE = 120
"""Columns of a terminal that has room for every heading and for wide curves."""
_ONLY_WIDE = ("val_accuracy", "forecast")
_CURVE_WIDTH, _NARROW_CURVE_WIDTH = 24, 12
_POLL_SECONDS = 0.5
_LINES_BESIDE_TRIALS = 12
_ORDER = {"running": 0, "waiting": 1, "paused": 2, "stopped": 3}


class Status(OnCluster):
    """Print the state and the trials of a sweep.

    Example: python -m sweeps status night --watch
    """

    name: SweepName
    watch: Annotated[bool, Flag("keep the table live, until the sweep ends or Ctrl-C")] = False
    as_json: Annotated[bool, Flag("print the sweep and its trials as JSON, with forecasts", name="json")] = False

    def __call__(self) -> int:
        if self.is_afar:
            if self.watch:
                follow = shlex.join(["python", "-m", "sweeps", "logs", self.name, *self.reached_by])
                raise InputError(f"--watch needs the sweep's folder; follow the sweep with: {follow}")
            return cluster_verbs.there(self, self.name)
        if self.watch and self.as_json:
            raise InputError("--watch and --json exclude each other: give one")
        folder, history = open_sweep(self.name, self.out)
        if self.watch:
            _watch(folder, history)
            return 0
        if self.as_json:
            from sweeps.serve.living import Living

            sys.stdout.write(json.dumps(Living(folder).state(), indent=2) + "\n")
            return 0
        spec = recorded_spec(history)
        row = sweep_row(folder, history)
        console.print(f"sweep {spec.name}: {state_text(row)}; {trials_begun(history, spec)} on {spec.dataset}")
        if left := time_left(row):
            console.print(left)
        if history.trials:
            console.print(leaderboard(history, spec, folder, console.width))
        if front := pareto_table(history):
            console.print(front)
        if forecast := forecast_table(history):
            console.print(forecast)
        for failure in failures(history):
            console.print(Text(f"failed: {failure}"))
        for line in acts(history):
            console.print(Text(line))
        return 0


class ListSweeps(OnCluster):
    """List every sweep of a folder, running ones first.

    Example: python -m sweeps list
    """

    as_json: Annotated[bool, Flag("print them as JSON", name="json")] = False

    def __call__(self) -> int:
        if self.is_afar:
            return cluster_verbs.there(self, None)
        rows = all_sweeps(self.out)
        if self.as_json:
            sys.stdout.write(as_json(rows))
        elif rows:
            console.print(table_of(rows))
        else:
            console.print(f"no sweep in {self.out}")
        return 0


class Logs(OfTrials):
    """Print the reports of a sweep or of a trial, line by line, until its driver ends.

    Example: python -m sweeps logs night 3
    """

    trial: Annotated[str | None, Flag("one trial, with its traceback if it failed", "TRIAL", positional=True)] = None
    as_json: Annotated[bool, Flag("print the journal's lines", name="json")] = False

    def __call__(self) -> int:
        if self.is_afar:
            of_job = self.trial is None and not self.as_json
            return cluster_verbs.logs(self, self.name) if of_job else cluster_verbs.there(self, self.name)
        folder = sweep_folder(self.name, self.out)
        number = None if self.trial is None else find_run(f"{self.name}/{self.trial}", self.out).trial.number
        for event, history in _followed(folder):
            if event is None:
                if number is not None and history.trials[number].is_over:
                    break
            elif number is None or getattr(event, "trial", None) == number:
                line = event.model_dump_json() if self.as_json else event_line(event, history)
                if line:
                    console.print(Text(line), soft_wrap=True)
            if is_unread():
                break
        error = folder.trial(number).root / "error.txt" if number is not None else None
        if error and error.is_file() and not self.as_json:
            console.print(Text(error.read_text(encoding="utf-8", errors="replace")), soft_wrap=True)
        return 0


def _watch(folder: SweepFolder, history: SweepHistory) -> None:
    """Show a sweep's live table until its driver ends, or until Ctrl-C."""
    if not console.is_terminal:
        raise InputError("--watch needs a terminal; without it, status prints the table once")
    hint = Text("Ctrl-C ends this view; the sweep continues", style="dim")
    with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        for event, history in _followed(folder):
            if event is None:
                live.update(Group(_screen(folder, history), hint), refresh=True)
    console.print(_screen(folder, history))


def _followed(folder: SweepFolder) -> Iterator[tuple[Event | None, SweepHistory]]:
    """Yield the journal's events, each with the history up to it, as long as the sweep has a driver.

    None means that there is no further event for now.
    """
    history: SweepHistory | None = None
    offset = 0
    while True:
        is_driven = folder_holder(folder.root) is not None
        events, after = read_from(folder.journal, offset)
        if history is None:
            history = SweepHistory.replay(events[:1])
            events = events[1:]
        for event in events:
            history.apply(event)
            yield event, history
        if after == offset or not is_driven:
            yield None, history
        if after == offset and not is_driven:
            return
        if after == offset:
            time.sleep(_POLL_SECONDS)
        offset = after


def sparkline(values: Sequence[float], width: int = _CURVE_WIDTH) -> str:
    """A curve as one line of text, scaled to its range."""
    finite = [value for value in values if value == value]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step = max(len(finite) / width, 1.0)
    shown = [finite[int(place * step)] for place in range(int(len(finite) / step))]
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in shown)


def _screen(folder: SweepFolder, history: SweepHistory) -> Group:
    spec = recorded_spec(history)
    row = sweep_row(folder, history)
    counts = ", ".join(f"{history.count(state)} {state}" for state in STATES if history.count(state))
    is_wide = console.width >= _WIDE
    headings = [heading for heading in _HEADINGS if is_wide or heading not in _ONLY_WIDE]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    for heading in headings:
        # Forecasts and reasons share what the others leave.
        ratio = 1 if heading in ("forecast", "reason") else None
        table.add_column(heading, justify="right" if heading in ("epoch", "val_accuracy", "best") else "left",
                         no_wrap=True, ratio=ratio)  # fmt: skip
    ranked = {trial.number: rank for rank, trial in enumerate(history.ranked())}
    trials = sorted(
        history.trials.values(), key=lambda one: (_ORDER.get(one.state, 4), ranked.get(one.number, 1 << 30))
    )
    rows = max(console.height - _LINES_BESIDE_TRIALS, 3)
    reasons = history.reasons(trials[:rows])
    ends = forecasts(history, trials[:rows])
    for trial in trials[:rows]:
        forecast = forecast_text(ends[trial.number]) if trial.number in ends else ""
        row_of_trial = _trial_row(trial, forecast, reasons[trial.number], is_wide)
        table.add_row(*(row_of_trial[heading] for heading in headings))
    if len(trials) > rows:
        table.add_row(f"and {len(trials) - rows} more")
    messages = [*(f"failed: {text}" for text in failures(history)[-2:]), *acts(history)[-3:]]
    return Group(
        Text(f"{spec.name}: {'; '.join(filter(None, (state_text(row), time_left(row))))}", style="bold"),
        Text(f"{trials_begun(history, spec)}: {counts}"),
        Text(best_line(history), style="bold green"),
        table,
        *(Text(line, overflow="ellipsis", no_wrap=True) for line in messages),
    )


def _trial_row(trial: TrialHistory, forecast: str, reason: str, is_wide: bool) -> dict[str, str]:
    values = [epoch.metrics[OBJECTIVE] for epoch in trial.epochs]
    best = trial.best_epoch()
    cells = (
        trial_name(trial),
        trial.state,
        f"{trial.last_epoch}/{trial.started.epochs}",
        f"{values[-1]:.2%}" if values else "",
        f"{best.metrics[OBJECTIVE]:.2%}" if best else "",
        sparkline(values, _CURVE_WIDTH if is_wide else _NARROW_CURVE_WIDTH),
        forecast,
        reason,
    )
    return dict(zip(_HEADINGS, cells, strict=True))
