"""A residual net for 48-pixel grey faces on small hardware: four groups of He et al.'s (2016) basic blocks.

Legend: n images, c channels, h and w height and width.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_models.configs.net_config import CompactResNetConfig
from fer_models.parts.initialisers import he
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import StagedNet


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 where shape or stride change."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            projection = nn.Conv2d(channels, width, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, width, h / stride, w / stride]."""
        changed = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu_()))
        result: Tensor = (changed + self.shortcut(x)).relu_()
        return result


def build(
    config: CompactResNetConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """Maps 48 → 24 → 12 → 6 → 3 → 1. The last layer is initialised with small weights (Goyal et al. 2017, 5.1).

    Their other initialization, zero for the last norm of a block, is for deep nets: with it these seven blocks stay at
    chance in the first epoch, without it they learn from the hundredth step on.
    """
    channels = config.widths[0]
    stem = nn.Conv2d(1, channels, 3, stride=config.stem_stride, padding=1, bias=False)
    parts = OrderedDict[str, nn.Module](stem=nn.Sequential(stem, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)))
    for number, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True), 1):
        group = [ResidualBlock(channels, width, stride=1 if number == 1 else 2)]
        group += [ResidualBlock(width, width, stride=1) for _ in range(blocks - 1)]
        parts[f"group{number}"], channels = nn.Sequential(*group), width
    stages = {name: (name,) for name in parts}
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    classifier = nn.Linear(channels, classes)
    net = StagedNet(
        FaceInput(config.normalisation, mean_image, size=config.size),
        nn.Sequential(parts),
        nn.Sequential(Dropout(config.dropout), classifier),
        stages,
    )
    he(net, generator, "fan_out")
    # With fan_out = 7 the initial logits would differ by about eight, and the first epochs would only correct that.
    nn.init.normal_(classifier.weight, std=0.01, generator=generator)
    return net
