"""The R/Keras report's net for happy and sad faces: with 2 classes 47,634,378 parameters at 244 pixels."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import HappySadConfig
from fer_models.parts.initialisers import glorot
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import KERAS_EPS, KERAS_MOMENTUM, Dropout
from fer_models.parts.staged import StagedNet


def build(
    config: HappySadConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """Two convolutions and FC200, with Keras's initialization."""
    backbone = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(1, 32, 3, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(32, 16, 3, padding=1),
        relu2=nn.LeakyReLU(0.5),
        norm=nn.BatchNorm2d(16, eps=KERAS_EPS, momentum=KERAS_MOMENTUM),
        pool=nn.MaxPool2d(2),
        dropout=Dropout(config.conv_dropout),
    )
    net = StagedNet(
        FaceInput("unit", mean_image, size=config.size),
        nn.Sequential(backbone),
        nn.Sequential(Dropout(config.dropout), nn.Linear(200, classes)),
        {"conv1": ("conv1", "relu1"), "conv2": ("conv2", "relu2", "norm", "pool", "dropout")},
        neck=nn.Sequential(nn.Linear(16 * (config.size // 2) ** 2, 200), nn.ReLU()),
    )
    glorot(net, generator)
    return net
