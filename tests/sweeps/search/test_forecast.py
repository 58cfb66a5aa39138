"""A trial's end is forecast from its first epochs, and shown with its chance to beat the best."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeps.cli.main import main
from sweeps.search.forecast import MOST, ends, forecasts
from sweeps.sweep import SweepResult
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.benchmarks.curves.table import load
from tests.sweeps.fake_trials import metrics, only_sampled
from tracking.record.history import TrialHistory

RISING = (0.25, 0.31, 0.35, 0.37, 0.39, 0.40, 0.41, 0.415, 0.42)


def _quantiles(curve: tuple[float, ...], epochs: int, *complete: tuple[float, ...]) -> list[float]:
    found: list[float] = np.quantile(ends(curve, epochs, complete), (0.1, 0.5, 0.9)).tolist()
    return found


def test_an_interval_narrows_with_each_epoch_and_never_ends_below_the_best() -> None:
    widths = []
    for seen in (2, 4, 8):
        low, value, high = _quantiles(RISING[:seen], 9)
        assert max(RISING[:seen]) <= low <= value <= high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert ends(RISING, 9).tolist() == [0.42] * 200
    low, value, high = _quantiles((0.25,) * 8, 9)
    assert value < 0.27


def test_complete_trials_of_the_sweep_show_what_their_schedule_does() -> None:
    """A learning rate that falls at the end: no power law knows of the step."""
    stepped = ((0.3, 0.35, 0.36, 0.36, 0.36, 0.36, 0.45, 0.46, 0.46),) * 3
    alone, taught = _quantiles((0.29, 0.34, 0.35, 0.35), 9), _quantiles((0.29, 0.34, 0.35, 0.35), 9, *stepped)
    assert taught[0] > alone[1]
    assert taught[0] < 0.45 < taught[2]


def test_intervals_hold_on_recorded_curves_and_beat_the_last_value() -> None:
    """Half of FER-Curves on which no constant was chosen, after 4 of 9 epochs."""
    curves = load()
    val = curves.series["val_accuracy"][curves.firsts][1::2]
    val = val[~np.isnan(val).any(axis=1)]
    learning = val[val[:, :4].max(1) > 0.26]
    quantiles = np.array([_quantiles(tuple(curve[:4]), 9) for curve in learning])
    final = learning.max(1)
    assert len(learning) >= 25
    assert ((quantiles[:, 0] <= final) & (final <= quantiles[:, 2])).mean() >= 0.8
    assert np.diff(quantiles[:, [0, 2]]).mean() < 0.12
    assert np.abs(quantiles[:, 1] - final).mean() < 0.75 * np.abs(learning[:, :4].max(1) - final).mean()


@pytest.mark.parametrize("epochs", [9, 174])
def test_a_forecast_takes_milliseconds(epochs: int) -> None:
    complete = tuple(tuple(np.linspace(0.25, 0.5 + 0.001 * k, epochs).tolist()) for k in range(20))
    took = []
    for k in range(15):
        began = time.thread_time()
        ends(tuple(np.linspace(0.25, 0.4 + 0.001 * k, epochs // 3).tolist()), epochs, complete)
        took.append(time.thread_time() - began)
    assert np.median(took) < 0.02  # 1 to 5 ms on a quiet machine


def _body(task: Task) -> Iterator[Message]:
    """The first trial ends, the second leaves after three epochs, and its fault stops the sweep."""
    for epoch in range(1, 4 if task.trial else 10):
        value = 0.3 + 0.01 * epoch + 0.05 * (task.trial == 1)
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value))
    if task.trial:
        yield TrialEnd(attempt=task.attempt, state="blocked", reason="the disk is full")
    yield TrialEnd(attempt=task.attempt, state="ended")


def test_status_shows_where_an_unfinished_trial_ends(
    sweep: Callable[..., SweepResult], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(space=only_sampled(), trials=4, epochs=9, pruner="none", body=_body)
    assert main(["status", "night", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "to beat trial 0" in printed
    assert "80 % intervals" in printed
    assert main(["status", "night", "--json", "--out", str(out)]) == 0
    trials = {one["number"]: one for one in json.loads(capsys.readouterr().out)["trials"]}
    assert trials[0]["forecast"] is None
    forecast = trials[1]["forecast"]
    assert forecast["rival"] == 0
    assert 0.38 <= forecast["low"] <= forecast["value"] <= forecast["high"] <= 0.75
    assert forecast["chance"] > 0.3


def test_one_epoch_says_nothing(
    sweep: Callable[..., SweepResult], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield EpochReport(attempt=task.attempt, epoch=1, metrics=metrics(0.3))
        yield TrialEnd(attempt=task.attempt, state="blocked", reason="the disk is full")

    sweep(space=only_sampled(), trials=1, epochs=9, pruner="none", body=body)
    assert main(["status", "night", "--out", str(out)]) == 0
    assert "forecast" not in capsys.readouterr().out
    assert main(["status", "night", "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["trials"][0]["forecast"] is None


def _like(trial: TrialHistory, number: int, *values: float) -> TrialHistory:
    """The same trial under another number and with other accuracies."""
    epochs = [
        one.model_copy(update={"trial": number, "metrics": one.metrics | {"val_accuracy": value}})
        for one, value in zip(trial.epochs, values, strict=True)
    ]
    return replace(trial, started=trial.started.model_copy(update={"trial": number}), epochs=epochs)


def test_of_thousands_the_most_promising_are_forecast(sweep: Callable[..., SweepResult]) -> None:
    history = sweep(space=only_sampled(), trials=4, epochs=9, pruner="none", body=_body).history
    for number in range(2, 1000):
        history.trials[number] = _like(history.trials[1], number, 0.2, 0.25, 0.3 + number / 1e4)
    found = forecasts(history)
    assert found.keys() == history.trials.keys() - {0}
    assert sorted(number for number, one in found.items() if one) == list(range(1000 - MOST, 1000))


def test_an_accuracy_that_is_no_number_is_no_curve(sweep: Callable[..., SweepResult]) -> None:
    history = sweep(space=only_sampled(), trials=4, epochs=9, pruner="none", body=_body).history
    history.trials[2] = _like(history.trials[0], 2, *[0.3] * 8, float("nan"))
    history.trials[3] = _like(history.trials[1], 3, 0.3, float("nan"), 0.3)
    found = forecasts(history)
    assert found[3] is None
    assert found[1]
    assert 0.3 < found[1].value < 1
