"""AlexNet as the Caffe report trains it: 7,467,527 parameters with 7 classes at 48 pixels, 44,167,687 at 227.

The padding row of the report's table 1 is misaligned: the true pads are 0, 2, 1, 1, 1.
Pools round up, as in Caffe.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_models.configs.net_config import AlexNetConfig
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout, LocalResponseNorm, conv3x3
from fer_models.parts.staged import Stages

_PIXEL_DEVIATION = 64.0  # of FER2013's training pixels around their mean image, to the nearest power of two
_CHANNELS = (96, 256, 384, 384, 256)
_LAST_MAP = {48: 1, 227: 6}  # height and width after conv5's pool


class AlexNet(nn.Module):
    """Maps 48 → conv1 10 → pool 5 → conv2 5 → pool 2 → conv3, conv4, conv5 2 → pool 1; 227 → 55, 27, 27, 13, 13, 6."""

    def __init__(self, config: AlexNetConfig, classes: int, mean_image: npt.NDArray[np.float32]) -> None:
        super().__init__()
        batch_norm = config.norm == "batch"
        scale = 1 / _PIXEL_DEVIATION if config.starts_by_he else 1.0
        self.input = FaceInput(config.normalisation, mean_image, size=config.size, scale=scale)
        self.conv1 = nn.Conv2d(1, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.batch_norms = nn.ModuleList(nn.BatchNorm2d(c) if batch_norm else nn.Identity() for c in _CHANNELS)
        self.response_norm = nn.Identity() if batch_norm else LocalResponseNorm()
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc6 = nn.Linear(256 * _LAST_MAP[config.size] ** 2, 4096)
        self.dropout = Dropout(config.dropout)
        self.fc7 = nn.Linear(4096, 1000)
        self.head = nn.Sequential(
            OrderedDict[str, nn.Module](dropout=Dropout(config.dropout), fc8=nn.Linear(1000, classes))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] float 0..255 -> logits [n, classes]."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] float 0..255 -> [n, 1000]."""
        x = self._activate(0, self.conv1(self.input(x)))
        x = self.pool(self.response_norm(x))
        x = self._activate(1, self.conv2(x))
        x = self.pool(self.response_norm(x))
        x = self._activate(2, conv3x3(self.conv3, x))
        x = self._activate(3, conv3x3(self.conv4, x))
        x = self.pool(self._activate(4, conv3x3(self.conv5, x)))
        x = self.dropout(self.fc6(x.flatten(1)).relu_())
        features: Tensor = self.fc7(x).relu_()
        return features

    def stages(self) -> Stages:
        """(name, modules) from the stem to the head."""
        convs = (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5)
        found = [(f"conv{i}", (conv, self.batch_norms[i - 1])) for i, conv in enumerate(convs, 1)]
        return (*found, ("fc6", (self.fc6, self.dropout)), ("fc7", (self.fc7,)), ("head", (self.head,)))

    def _activate(self, index: int, x: Tensor) -> Tensor:
        activation: Tensor = self.batch_norms[index](x).relu_()
        return activation


def build(
    config: AlexNetConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> AlexNet:
    """An initialised AlexNet."""
    net = AlexNet(config, classes, mean_image)
    _initialise(net, config, generator)
    return net


@torch.no_grad()
def _initialise(net: AlexNet, config: AlexNetConfig, generator: torch.Generator) -> None:
    """Caffe's fillers, or He's normal initialization with fan in (He et al. 2015)."""
    fc8 = net.head.get_submodule("fc8")
    caffe: dict[nn.Module, tuple[float, float]] = {  # weight deviation, bias
        net.conv1: (0.01, 0.0),
        net.conv2: (0.01, 0.1),
        net.conv3: (0.01, 0.0),
        net.conv4: (0.01, 0.1),
        net.conv5: (0.01, 0.1),
        net.fc6: (0.005, 0.1),
        net.fc7: (0.005, 0.1),
        fc8: (0.01, 0.0),
    }
    for layer, (deviation, bias) in caffe.items():
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        he = math.sqrt(2 / layer.weight[0].numel())
        layer.weight.normal_(0, he if config.starts_by_he else deviation, generator=generator)
        if layer.bias is not None:
            layer.bias.fill_(0.0 if config.starts_by_he else bias)
