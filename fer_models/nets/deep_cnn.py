"""The DL-course report's net: 20,582,432 parameters with 7 classes."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import DeepCNNConfig
from fer_models.parts.initialisers import seed_layers
from fer_models.parts.inputs import FaceInput
from fer_models.parts.staged import StagedNet

# (channels, kernel, padding) of each convolution; a pool follows each group.
_GROUPS = (
    ((32, 3, 1), (64, 3, 1)),
    ((128, 3, 1), (256, 3, 1), (512, 1, 1)),
    ((1024, 3, 1), (1024, 3, 1)),
    ((512, 3, 1), (256, 3, 0)),
)


def build(
    config: DeepCNNConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """Maps 48 → 24 → 26 (a 1x1 with padding) → 13 → 6 → 4 → 1; PyTorch's initialization, as in the report."""
    seed_layers(generator)
    backbone = OrderedDict[str, nn.Module]()
    channels = config.channels
    for number, group in enumerate(_GROUPS, 1):
        layers: list[nn.Module] = []
        for width, kernel, padding in group:
            layers += [nn.Conv2d(channels, width, kernel, padding=padding, bias=False), nn.ReLU()]
            layers.append(nn.BatchNorm2d(width))
            channels = width
        layers.append(nn.AvgPool2d(4) if group is _GROUPS[-1] else nn.MaxPool2d(2))
        backbone[f"group{number}"] = nn.Sequential(*layers)
    return StagedNet(
        FaceInput("half", mean_image, size=config.size, channels=config.channels),
        nn.Sequential(backbone),
        nn.Linear(channels, classes, bias=False),  # the report's 1x1 convolution on a map of 1x1
        {name: (name,) for name in backbone},
    )
