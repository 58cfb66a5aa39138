"""One configuration, as many seeds as there are trials: how much of a difference is chance, and an ensemble's members.

    python -m sweeps.run seeds_space --trials 5
    python -m sweeps ensemble --sweep NAME --top 5

The configuration is the compact residual net's; --set changes it as anywhere. No trial is pruned, as members of an
ensemble are wanted whole.

Measured 2026-11-23 on 2 cores, three seeds: 4.9 minutes, 62.56 % of PublicTest (`record-5`, minutes per seed and the
average, with its settings).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeps.config import TrialConfig
from sweeps.space import Space
from sweeps.spaces.compact_resnet_space import CHAMPION

if TYPE_CHECKING:
    import optuna


def suggest(trial: optuna.Trial) -> TrialConfig:
    """The configuration, as the replicate that the trial's number makes it."""
    return CHAMPION.model_copy(update={"replicate": trial.number})


SPACE = Space(suggest=suggest, max_epochs=20, trials=5, first_rung_epochs=1_000_000)
