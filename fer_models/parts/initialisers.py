"""Initialization of weights; biases are 0. All random numbers come from the generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn


def caffe_xavier(net: nn.Module, generator: torch.Generator) -> None:
    """Caffe's "xavier" filler, which is uniform in ±sqrt(3 / fan_in)."""

    def fill(weight: Tensor) -> None:
        bound = math.sqrt(3 / weight[0].numel())
        weight.uniform_(-bound, bound, generator=generator)

    _fill(net, fill)


def glorot(net: nn.Module, generator: torch.Generator) -> None:
    """Uniform in ±sqrt(6 / (fan_in + fan_out)), as in Keras (Glorot and Bengio 2010)."""
    _fill(net, lambda weight: nn.init.xavier_uniform_(weight, generator=generator))


def he(net: nn.Module, generator: torch.Generator, fan: Literal["fan_in", "fan_out"] = "fan_in") -> None:
    """Normal with deviation sqrt(2 / fan) (He et al. 2015); Caffe's "msra" filler takes fan_in."""
    _fill(net, lambda weight: nn.init.kaiming_normal_(weight, mode=fan, nonlinearity="relu", generator=generator))


def seed_layers(generator: torch.Generator) -> None:
    """Seed layers that initialize themselves from the generator."""
    seed = torch.randint(2**62, (), generator=generator, device="cpu").item()
    torch.default_generator.manual_seed(int(seed))


@torch.no_grad()
def _fill(net: nn.Module, fill: Callable[[Tensor], object]) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fill(module.weight)
            if module.bias is not None:
                module.bias.zero_()
