"""dlib's ResNet with 27 convolutions, trained to recognise people, and a head of ours (King 2017, dlib.net, CC0).

Where a shortcut's map or channels are fewer than the convolutions', or more, dlib adds zeros to the smaller one. Its
affine layers are batch norms whose statistics were merged into them. With dlib's weights and its last layer the net
gives dlib's own descriptors to within 4e-7 (dlib 20.0.1, three images, checked 2026-11-27).

Legend: n images, c channels, h and w height and width.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_models.configs.net_config import FaceResNetConfig
from fer_models.parts.initialisers import he
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import StagedNet

# Channels and blocks of each level; the first block of a level halves the map, except in the first level.
_LEVELS = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))


_PLACES = 2
"""Along each side of the last map."""


class Affine(nn.Module):
    """A factor and a summand per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w], kept."""
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class Block(nn.Module):
    """Two convolutions around a shortcut, which is an average of 2x2 where they halve the map."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        padding = 1 if stride == 1 else 0
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=padding)
        self.affine1 = Affine(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.affine2 = Affine(width)
        self.shortcut = nn.AvgPool2d(2) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, width, h / stride, w / stride]."""
        changed = self.affine2(self.conv2(self.affine1(self.conv1(x)).relu_()))
        kept = self.shortcut(x)
        shape = [max(sizes) for sizes in zip(changed.shape[1:], kept.shape[1:], strict=True)]
        return (_filled(changed, shape) + _filled(kept, shape)).relu_()


def _filled(x: Tensor, shape: list[int]) -> Tensor:
    """Zeros behind the channels, below and on the right, up to `shape` (channels, height, width)."""
    channels, height, width = (full - own for full, own in zip(shape, x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels)) if channels or height or width else x


def build(
    config: FaceResNetConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """Maps 150 -> 72 -> 35 -> 17 -> 8 -> 4 -> 2.

    dlib averages the last map, which recognises people but loses where a mouth moved: a head on the average of frozen
    features reaches 48 % of PublicTest, one on the four places 56 %. Their deviations are a quarter of their means, so
    that the head begins with a batch norm: without it 47 % after 8 epochs.
    """
    channels = _LEVELS[0][0]
    stem = (nn.Conv2d(3, channels, 7, stride=2), Affine(channels), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2))
    parts = OrderedDict[str, nn.Module](stem=nn.Sequential(*stem))
    for number, (width, blocks) in enumerate(_LEVELS, 1):
        level = []
        for index in range(blocks):
            level.append(Block(channels, width, stride=2 if index == 0 and number > 1 else 1))
            channels = width
        parts[f"level{number}"] = nn.Sequential(*level)
    stages = {name: (name,) for name in parts}
    parts["pool"] = nn.AdaptiveAvgPool2d(_PLACES)  # which at 150 leaves the map as it is
    features = channels * _PLACES**2
    net = StagedNet(
        FaceInput("dlib", mean_image, size=config.size, channels=config.channels),
        nn.Sequential(parts),
        nn.Sequential(nn.BatchNorm1d(features), Dropout(config.dropout), nn.Linear(features, classes)),
        stages,
    )
    he(net, generator, "fan_in")
    return net
