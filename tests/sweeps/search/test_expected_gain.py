"""What going on is expected to gain: from the values of the trials, and from the forecasts of those that run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest

from sweeps.driver.runner import InlineRunner
from sweeps.search.expected_gain import expected_gain, gain_of_draws, gain_of_running
from sweeps.search.forecast import ends
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import config, metrics, only_sampled, open_desk, spec

VALUES = [0.31, 0.4, 0.25, 0.38, 0.4, 0.36, 0.29, 0.42]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_gain_of_draws_is_what_as_many_fewer_would_have_lost(count: int) -> None:
    kept = combinations(VALUES, len(VALUES) - count)
    assert gain_of_draws(VALUES, count) == pytest.approx(fmean(max(VALUES) - max(some) for some in kept))


def test_equal_values_gain_nothing() -> None:
    assert gain_of_draws([0.4] * 30, 15) == 0


def test_a_repeated_draw_counts_with_the_result_that_it_reuses(tmp_path: Path) -> None:
    reached = {0.01: 0.5, 0.02: 0.4, 0.03: 0.3, 0.04: 0.2, 0.05: 0.1}

    def body(task: Task) -> Iterator[Message]:
        yield EpochReport(attempt=task.attempt, epoch=1, metrics=metrics(reached[task.config.recipe.lr]))
        yield TrialEnd(attempt=task.attempt, state="ended")

    space = only_sampled(9, lambda trial: config(trial.suggest_categorical("lr", list(reached))))
    space = replace(space, sampler="random")
    desk = open_desk(tmp_path / "night", space, spec(trials=30, max_epochs=1))
    InlineRunner().run(desk.director, body)
    history = desk.director.history
    assert sum(not trial.epochs for trial in history.trials.values()) == 25, "all but the first of each"
    values = [reached[trial.started.params["lr"]] for trial in history.trials.values()]
    gain = expected_gain(history)
    assert gain
    assert gain.points > 0
    assert gain.points == pytest.approx(100 * gain_of_draws(values, 15))


def test_a_trial_that_rises_is_worth_waiting_for() -> None:
    rising = ends((0.25, 0.3, 0.35, 0.39), 9)
    assert gain_of_running([rising], 0.4) > 0.01
    assert gain_of_running([rising, ends((0.25, 0.3, 0.35, 0.385), 9)], 0.4) > gain_of_running([rising], 0.4)
    assert gain_of_running([ends((0.25, 0.25, 0.25, 0.25), 9)], 0.5) < 0.004
    assert gain_of_running([], 0.4) == 0
