"""A table with the forecast of each unfinished trial's best accuracy at its end."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from sweeps.cli.progress import trial_name
from sweeps.search.forecast import LEAST_EPOCHS, Forecast, forecasts
from tracking.record.history import SweepHistory

TOO_FEW = "–"
_SHOWN = 10


def forecast_table(history: SweepHistory) -> Table | None:
    """The most promising trials first. None if no trial has enough epochs."""
    found = forecasts(history)
    if all(one is None for one in found.values()):
        return None
    order = sorted(found, key=lambda number: _promise(found[number]), reverse=True)
    table = Table(
        title="forecast: best val_accuracy at the end of each unfinished trial",
        caption=f"80 % intervals in brackets; {TOO_FEW}: fewer than {LEAST_EPOCHS} epochs so far",
        header_style="bold",
    )
    for heading in ("trial", "state", "epoch", "so far", "forecast"):
        table.add_column(heading, justify="right" if heading in ("epoch", "so far") else "left")
    for number in order[:_SHOWN]:
        trial = history.trials[number]
        best, epoch = trial.best_accuracy, f"{trial.last_epoch}/{trial.started.epochs}"
        so_far = f"{best:.2%}" if best is not None else ""
        table.add_row(Text(trial_name(trial)), trial.state, epoch, so_far, forecast_text(found[number]))
    if len(order) > _SHOWN:
        table.add_row(f"and {len(order) - _SHOWN} more")
    return table


def forecast_text(forecast: Forecast | None) -> str:
    """The forecast as a table cell."""
    return TOO_FEW if forecast is None else str(forecast)


def _promise(forecast: Forecast | None) -> tuple[float, float]:
    return (-1.0, 0.0) if forecast is None else (forecast.chance or 0.0, forecast.value)
