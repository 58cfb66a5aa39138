"""Optuna's own pruner is the oracle of ours."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from sweeps.search.asha import Halving


@pytest.mark.parametrize(("first_rung", "factor", "coarse"), [(1, 2, False), (2, 3, False), (2, 3, True), (1, 4, True)])
def test_it_decides_what_optunas_pruner_decides(first_rung: int, factor: int, coarse: bool) -> None:
    """300 trials that report in any order; coarse values meet often; one in ten continues against the verdict."""
    rng = np.random.default_rng([first_rung, factor, coarse])
    study = optuna.create_study(
        direction="maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=first_rung, reduction_factor=factor),
    )
    ours, verdicts = Halving(first_rung, factor), 0
    running: list[tuple[optuna.Trial, int]] = []
    for number in range(300):
        running.append((study.ask(), 0))
        for _ in range(4):
            place = int(rng.integers(len(running)))
            trial, epoch = running[place]
            value = float(rng.integers(5) / 5 if coarse else rng.random())
            trial.report(value, epoch + 1)
            theirs = trial.should_prune()
            assert (ours.report(trial.number, epoch + 1, value) is not None) == theirs, (number, epoch)
            verdicts += theirs
            running[place] = (trial, epoch + 1)
            if (theirs and rng.random() < 0.9) or epoch == 12:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                running[place] = running[-1]
                running.pop()
            if not running:
                break
    assert verdicts > 50


def test_the_reason_by_hand() -> None:
    halving = Halving(2, 3)
    assert halving.report(0, 1, 0.1) is None
    assert halving.report(0, 2, 0.8) is None
    assert halving.report(1, 2, 0.6) == "stopped at epoch 2: 0.6000 under the cut 0.8000, rank 2 of 2"
    assert halving.report(2, 2, 0.9) is None
    assert [halving.report(number, 2, value) for number, value in ((3, 0.5), (4, 0.85))] == [
        "stopped at epoch 2: 0.5000 under the cut 0.9000, rank 4 of 4",
        "stopped at epoch 2: 0.8500 under the cut 0.9000, rank 2 of 5",
    ]
    assert halving.report(5, 2, 0.85) is None  # two of six continue
    assert halving.report(0, 6, 0.7) is None  # the first at its next rung
    assert halving.report(2, 6, float("nan")) == "stopped at epoch 6: not a number"
