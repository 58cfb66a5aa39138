"""Caffe's LeNet as the Caffe report trains it on 48-pixel faces: 2,054,577 parameters with 7 classes."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import LeNetConfig
from fer_models.parts.initialisers import caffe_xavier
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import StagedNet


def build(
    config: LeNetConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """Maps 48 → 44 → 22 → 18 → 9; the convolutions have no activation, as in Caffe's example."""
    backbone = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(1, 20, 5), pool1=nn.MaxPool2d(2), conv2=nn.Conv2d(20, 50, 5), pool2=nn.MaxPool2d(2)
    )
    net = StagedNet(
        FaceInput("caffe", mean_image, size=config.size),
        nn.Sequential(backbone),
        nn.Sequential(OrderedDict[str, nn.Module](dropout=Dropout(config.dropout), fc2=nn.Linear(500, classes))),
        {"conv1": ("conv1", "pool1"), "conv2": ("conv2", "pool2")},
        neck=nn.Sequential(OrderedDict[str, nn.Module](fc1=nn.Linear(50 * 9 * 9, 500), relu=nn.ReLU())),
    )
    caffe_xavier(net, generator)
    return net
