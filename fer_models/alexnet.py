"""AlexNet for 48-pixel faces as the Caffe report trains it: 7,467,527 parameters with 7 classes.

The padding row of the report's table 1 is misaligned: the true pads are 0, 2, 1, 1, 1.
Pools round up, as in Caffe.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_models.layers import Dropout, LocalResponseNorm, Normalise, conv3x3
from fer_models.net_config import AlexNetConfig

INPUT_SIZE = 48
_PIXEL_DEVIATION = 64.0  # of FER2013's training pixels around their mean image, to the nearest power of two
_CHANNELS = (96, 256, 384, 384, 256)


class AlexNet(nn.Module):
    """Maps 48 → conv1 10 → pool 5 → conv2 5 → pool 2 → conv3, conv4, conv5 2 → pool 1."""

    def __init__(self, config: AlexNetConfig, classes: int, mean_image: npt.NDArray[np.float32]) -> None:
        super().__init__()
        batch_norm = config.norm == "batch"
        self.normalise = Normalise(mean_image, scale=1 / _PIXEL_DEVIATION if batch_norm else 1.0)
        self.conv1 = nn.Conv2d(1, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.batch_norms = nn.ModuleList(nn.BatchNorm2d(c) if batch_norm else nn.Identity() for c in _CHANNELS)
        self.response_norm = nn.Identity() if batch_norm else LocalResponseNorm()
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc6 = nn.Linear(256, 4096)
        self.fc7 = nn.Linear(4096, 1000)
        self.fc8 = nn.Linear(1000, classes)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 48, 48] float 0..255 -> logits [n, classes]."""
        x = self._activate(0, self.conv1(self.normalise(x)))
        x = self.pool(self.response_norm(x))
        x = self._activate(1, self.conv2(x))
        x = self.pool(self.response_norm(x))
        x = self._activate(2, conv3x3(self.conv3, x))
        x = self._activate(3, conv3x3(self.conv4, x))
        x = self.pool(self._activate(4, conv3x3(self.conv5, x)))
        x = self.dropout(self.fc6(x.flatten(1)).relu_())
        x = self.dropout(self.fc7(x).relu_())
        logits: Tensor = self.fc8(x)
        return logits

    def _activate(self, index: int, x: Tensor) -> Tensor:
        activation: Tensor = self.batch_norms[index](x).relu_()
        return activation


@torch.no_grad()
def initialise(net: AlexNet, config: AlexNetConfig, generator: torch.Generator) -> None:
    """Caffe's fillers with `norm="lrn"`; He's (2015, normal, fan in) with batch norm."""
    caffe: dict[nn.Conv2d | nn.Linear, tuple[float, float]] = {  # weight deviation, bias
        net.conv1: (0.01, 0.0),
        net.conv2: (0.01, 0.1),
        net.conv3: (0.01, 0.0),
        net.conv4: (0.01, 0.1),
        net.conv5: (0.01, 0.1),
        net.fc6: (0.005, 0.1),
        net.fc7: (0.005, 0.1),
        net.fc8: (0.01, 0.0),
    }
    for layer, (deviation, bias) in caffe.items():
        he = math.sqrt(2 / layer.weight[0].numel())
        layer.weight.normal_(0, deviation if config.norm == "lrn" else he, generator=generator)
        if layer.bias is not None:
            layer.bias.fill_(bias if config.norm == "lrn" else 0.0)
