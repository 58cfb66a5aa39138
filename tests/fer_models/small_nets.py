"""Nets that train in milliseconds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fer_models import CompactResNetConfig, NetConfig
from fer_models.nets.registry import build
from fer_models.parts.staged import StagedNet

TINY = CompactResNetConfig(size=32, widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1))
"""Stages stem, group1 to group4, head; batch norm everywhere."""


def make(config: NetConfig = TINY, *, classes: int = 7, seed: int = 0) -> StagedNet:
    mean = np.full((48, 48), 128, dtype=np.float32)
    net = build(config, classes=classes, mean_image=mean, generator=torch.Generator().manual_seed(seed))
    assert isinstance(net, StagedNet)
    return net


def copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def changed(net: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def names_in(net: StagedNet, stages: list[str]) -> set[str]:
    """Names of parameters and buffers of the stages."""
    ids = {
        id(value)
        for stage, modules in net.stages()
        if stage in stages
        for module in modules
        for value in module.state_dict(keep_vars=True).values()
    }
    return {name for name, value in net.state_dict(keep_vars=True).items() if id(value) in ids}
