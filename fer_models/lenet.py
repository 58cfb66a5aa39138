"""Caffe's LeNet as the Caffe report trains it on 48-pixel faces: 2,054,577 parameters with 7 classes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fer_models.layers import Dropout, Normalise
from fer_models.net_config import LeNetConfig

INPUT_SIZE = 48


class LeNet(nn.Module):
    """Maps 48 → 44 → 22 → 18 → 9; the convolutions have no activation, as in Caffe's example."""

    def __init__(self, config: LeNetConfig, classes: int) -> None:
        super().__init__()
        no_mean = np.zeros((INPUT_SIZE, INPUT_SIZE), dtype=np.float32)
        self.normalise = Normalise(no_mean, scale=1 / 256)
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2, 2),
        )
        self.fc1 = nn.Linear(50 * 9 * 9, 500)
        self.dropout = Dropout(config.dropout)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 48, 48] float 0..255 -> logits [n, classes]."""
        x = self.features(self.normalise(x))
        x = self.dropout(self.fc1(x.flatten(1)).relu())
        logits: Tensor = self.fc2(x)
        return logits


@torch.no_grad()
def initialise(net: LeNet, generator: torch.Generator) -> None:
    """Caffe's "xavier" filler, which is uniform in ±sqrt(3 / fan_in); biases 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = math.sqrt(3 / module.weight[0].numel())
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
