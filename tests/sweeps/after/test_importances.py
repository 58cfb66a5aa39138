"""What a sweep says about which of its settings matter."""

from collections.abc import Callable

import numpy as np
import optuna
import pytest

from sweeps.after.importances import LEAST_TRIALS, importances
from sweeps.search.proposals import random_trials
from tracking.figures.search_figures import importances_figure
from tracking.record.events import EpochDone, Event, SweepStarted, TrialEnded, TrialStarted
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Objective = Callable[[dict[str, float], np.random.Generator], float]


def swept(objective: Objective, trials: int, seed: int = 0, leading_baseline: bool = False) -> SweepHistory:
    """A sweep of random trials over a rate on a log scale and two settings without effect."""
    events: list[Event] = [SweepStarted(sweep_id="0" * 32, name="night", space="fake", spec={})]
    rng, source = np.random.default_rng(seed), random_trials(seed)
    if leading_baseline:
        events += ended(TrialStarted(trial=trials, config_id="", config={}, seed=0, epochs=1, baseline="report"), 0.9)
    for number in range(trials):
        trial = next(source)
        trial.suggest_float("lr", 1e-5, 1, log=True)
        trial.suggest_float("inert", 0, 1)
        trial.suggest_categorical("idle", ["a", "b", "c"])
        distributions = {
            name: optuna.distributions.distribution_to_json(one) for name, one in trial.distributions.items()
        }
        start = TrialStarted(trial=number, config_id="", config={}, seed=0, epochs=1, params=trial.params,
                             distributions=distributions)  # fmt: skip
        events += ended(start, objective(trial.params, rng))
    return SweepHistory.replay(events)


def ended(started: TrialStarted, value: float) -> list[Event]:
    number = started.trial
    epoch = EpochDone(trial=number, epoch=1, metrics={"val_accuracy": value})
    return [started, epoch, TrialEnded(trial=number, state="done", epochs=1)]


def noisy(params: dict[str, float], rng: np.random.Generator) -> float:
    return float(0.6 - 0.05 * (np.log10(params["lr"]) + 2) ** 2 + rng.normal(0, 0.05))


@pytest.mark.parametrize("seed", range(3))
def test_a_setting_without_effect_gets_little_and_a_leading_baseline_changes_nothing(seed: int) -> None:
    found = importances(swept(noisy, LEAST_TRIALS, seed))
    assert next(iter(found)) == "lr"
    assert found["lr"].value > 0.6
    assert all(found[name].low < 0.1 and found[name].value < 0.25 for name in ("inert", "idle"))
    assert sum(share.value for share in found.values()) == pytest.approx(1)
    assert all(share.low <= share.value <= share.high for share in found.values())
    assert importances(swept(noisy, LEAST_TRIALS, seed, leading_baseline=True)) == found


def test_too_few_or_equal_trials_say_nothing() -> None:
    assert importances(swept(noisy, LEAST_TRIALS - 1)) == {}
    assert importances(swept(lambda params, rng: 0.5, LEAST_TRIALS)) == {}


def test_the_picture_shows_how_sure_each_share_is() -> None:
    found = importances(swept(noisy, LEAST_TRIALS))
    texts = [text.get_text() for text in importances_figure(found, "").axes[0].texts]
    share = found["lr"]
    assert texts[0] == f"{share.value:.0%} ({100 * share.low:.0f} to {100 * share.high:.0f})"
