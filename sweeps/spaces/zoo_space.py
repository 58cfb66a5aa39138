"""Every net that trains on 48-pixel faces, each with settings of its own: which net is best is what is searched.

python -m sweeps.run zoo_space --trials 30

Measured 2026-11-27 on one core of a busy machine: 4.7 minutes, 13.01 % of PublicTest (two trials, one epoch of 500
faces each, which shows that it runs and nothing of the nets).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sweeps.spaces.alexnet_space as alexnet_space
import sweeps.spaces.compact_resnet_space as compact_resnet_space
import sweeps.spaces.googlenet_space as googlenet_space
import sweeps.spaces.lenet_space as lenet_space
import sweeps.spaces.resnet_spaces as resnet_spaces
import sweeps.spaces.vgg_small_space as vgg_small_space
import sweeps.spaces.vgg_small_tuned_space as vgg_small_tuned_space
from sweeps.config import TrialConfig
from sweeps.space import Space

if TYPE_CHECKING:
    import optuna

SPACES: dict[str, Space] = {
    "lenet": lenet_space.SPACE,
    "alexnet": alexnet_space.SPACE,
    "vgg_small": vgg_small_space.SPACE,
    "vgg_small_tuned": vgg_small_tuned_space.SPACE,
    "googlenet": googlenet_space.SPACE,
    "resnet18": resnet_spaces.RESNET18,
    "compact_resnet": compact_resnet_space.SPACE,
}


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Draw a net, then one configuration of it; a net's parameters are its own, `alexnet.lr` is not `lenet.lr`."""
    net = trial.suggest_categorical("net", list(SPACES))
    return SPACES[net].suggest(_Prefixed(trial, net))  # type: ignore[arg-type]


class _Prefixed:
    """A trial whose parameters' names begin with a net's name, so that each has a distribution of its own."""

    def __init__(self, trial: optuna.Trial, prefix: str) -> None:
        self._trial, self._prefix = trial, prefix

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._trial, attribute)
        if not attribute.startswith("suggest_"):
            return found
        return lambda name, *ends, **more: found(f"{self._prefix}.{name}", *ends, **more)


SPACE = Space(
    suggest=suggest,
    max_epochs=20,
    trials=20,
    first_rung_epochs=2,
    priors={f"{net}.{name}": prior for net, space in SPACES.items() for name, prior in space.priors.items()},
)
