"""The stages of a net, from its stem to its head, for freezing and for discriminative learning rates."""

from __future__ import annotations

from torch import nn

from fer_models.configs.transfer_config import Freeze
from fer_models.errors import ModelError
from fer_models.parts.staged import Staged, Stages


def stages_of(net: nn.Module) -> Stages:
    """The stages of a net; raises ModelError if it names none."""
    if not isinstance(net, Staged):
        raise ModelError(f"{type(net).__name__} names no stages, so none can be frozen or have its own learning rate")
    return net.stages()


def frozen_count(net: nn.Module, freeze: Freeze) -> int:
    """How many stages of `net` do not change; raises ModelError if the net has fewer below its head."""
    if freeze == 0:
        return 0
    below = [name for name, _ in stages_of(net)[:-1]]
    if freeze == "all_but_head":
        return len(below)
    if freeze > len(below):
        names = ", ".join(below)
        raise ModelError(f"freeze: {freeze}, but {type(net).__name__} has {len(below)} stages below its head ({names})")
    return freeze


def freeze_stages(net: nn.Module, freeze: Freeze) -> tuple[nn.Module, ...]:
    """Disable gradients of the frozen stages, enable all others. Returns the modules of the frozen stages."""
    count = frozen_count(net, freeze)
    net.requires_grad_(True)
    frozen = tuple(module for _, modules in stages_of(net)[:count] for module in modules) if count else ()
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def rate_factors(net: nn.Module, decay_per_stage: float) -> dict[int, float]:
    """The learning-rate factor by `id` of parameter, for parameters below the head."""
    if decay_per_stage == 1:
        return {}
    return {
        id(parameter): decay_per_stage**below_head
        for below_head, (_, modules) in enumerate(reversed(stages_of(net)))
        for module in modules
        for parameter in module.parameters()
    }
