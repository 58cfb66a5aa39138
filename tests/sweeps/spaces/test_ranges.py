"""The built-in spaces have wide ranges, with priors at values that are known to work."""

import math
from itertools import islice

import pytest
from optuna.distributions import BaseDistribution, FloatDistribution

from sweeps.search.proposals import random_trials
from sweeps.search.samplers import DRAWS_FOR_NAMES, check_priors
from sweeps.space import Space
from sweeps.spaces import SPACES

LEAST_DECADES = {"lr": 2, "weight_decay": 3}
NARROW = "alexnet"
"""The net whose space says in its docstring why its ranges are narrow."""


def drawn(space: Space) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for trial in islice(random_trials(0), DRAWS_FOR_NAMES):
        space.draw(trial)
        found |= trial.distributions
    return found


@pytest.mark.parametrize("name", SPACES)
def test_rates_and_decays_span_decades_and_have_a_prior(name: str) -> None:
    space = SPACES[name]
    check_priors(space, random_trials(0))
    for parameter, distribution in drawn(space).items():
        net, _, setting = parameter.rpartition(".")
        least = LEAST_DECADES.get(setting)
        if least is not None and NARROW not in (net, name.removesuffix("_space")):
            assert isinstance(distribution, FloatDistribution)
            assert distribution.log
            assert round(math.log10(distribution.high / distribution.low), 6) >= least
            assert parameter in space.priors
