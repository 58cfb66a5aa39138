"""From a net's configuration to the net."""

from __future__ import annotations

from typing import assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models import alexnet, lenet
from fer_models.errors import ModelError
from fer_models.net_config import AlexNetConfig, LeNetConfig, NetConfig


def build(
    config: NetConfig,
    *,
    classes: int,
    mean_image: npt.NDArray[np.float32],
    generator: torch.Generator,
) -> nn.Module:
    """A freshly initialised net on the CPU; equal generators give equal nets.

    The net maps float [n, 1, h, w] in 0..255 to logits [n, classes]; its first module normalises.

    Raises:
        ModelError: fewer than two classes, or a mean image that is not of the net's input size or not finite.
    """
    _check(config, classes, mean_image)
    with torch.random.fork_rng(devices=[]):  # torch's layers draw a start of their own, which is replaced
        if isinstance(config, LeNetConfig):
            lenet_net = lenet.LeNet(config, classes)
            lenet.initialise(lenet_net, generator)
            return lenet_net
        if isinstance(config, AlexNetConfig):
            alexnet_net = alexnet.AlexNet(config, classes, mean_image)
            alexnet.initialise(alexnet_net, config, generator)
            return alexnet_net
    assert_never(config)


def input_size(config: NetConfig) -> int:
    """Height and width in pixels of the faces that the net takes."""
    return {"lenet": lenet.INPUT_SIZE, "alexnet": alexnet.INPUT_SIZE}[config.name]


def count_parameters(net: nn.Module) -> int:
    """Trainable numbers; buffers (mean image, running statistics) are not counted."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def _check(config: NetConfig, classes: int, mean_image: npt.NDArray[np.float32]) -> None:
    side = input_size(config)
    if classes < 2:
        raise ModelError(f"classes: {classes}, expected 2 or more")
    if mean_image.shape != (side, side):
        found = "×".join(map(str, mean_image.shape))
        raise ModelError(f"{config.name} takes {side}×{side} faces, these are {found}")
    if not np.isfinite(mean_image).all():
        raise ModelError("mean image: holds NaN or infinite pixels; prepare the data again")
