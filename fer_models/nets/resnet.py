"""ResNets (He et al. 2016): torchvision's, and the Caffe report's ResNet-50."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import ResNet18Config, ResNet34Config, ResNet50Config, ResNet50V1Config
from fer_models.parts.grey_stem import grey_conv
from fer_models.parts.initialisers import caffe_xavier, he, seed_layers
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import StagedNet

_GROUPS = ("layer1", "layer2", "layer3", "layer4")


def build(
    config: ResNet18Config | ResNet34Config | ResNet50Config,
    classes: int,
    mean_image: npt.NDArray[np.float32],
    generator: torch.Generator,
) -> StagedNet:
    """torchvision's ResNet with its initialization."""
    seed_layers(generator)
    return _assemble(config, _torchvision(config.name), classes, mean_image)


def build_v1(
    config: ResNet50V1Config, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """The paper's ResNet-50 as Caffe has it: a block's stride is in its first 1x1, and the first pool rounds up.

    The published file gives the first convolution a bias; it is omitted, since the batch norm after it cancels it.
    """
    parts = _torchvision("resnet50")
    parts["maxpool"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    for group in _GROUPS[1:]:
        block = parts[group].get_submodule("0")
        for name, stride in (("conv1", 2), ("conv2", 1)):
            conv = block.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            conv.stride = (stride, stride)
    net = _assemble(config, parts, classes, mean_image)
    he(net, generator)
    caffe_xavier(net.head, generator)
    return net


def _torchvision(name: str) -> OrderedDict[str, nn.Module]:
    """The children of torchvision's net by name, except its last layer."""
    from torchvision import models

    parts = OrderedDict(models.get_model(name, weights=None).named_children())
    del parts["fc"]
    return parts


def _assemble(
    config: ResNet18Config | ResNet34Config | ResNet50Config | ResNet50V1Config,
    parts: OrderedDict[str, nn.Module],
    classes: int,
    mean_image: npt.NDArray[np.float32],
) -> StagedNet:
    stem = parts["conv1"]
    if config.channels == 1 and isinstance(stem, nn.Conv2d):
        parts["conv1"] = grey_conv(stem)
    features = 512 if config.name in ("resnet18", "resnet34") else 2048
    return StagedNet(
        FaceInput(config.normalisation, mean_image, size=config.size, channels=config.channels),
        nn.Sequential(parts),
        nn.Sequential(Dropout(config.dropout), nn.Linear(features, classes)),
        {"stem": ("conv1", "bn1", "relu", "maxpool")} | {group: (group,) for group in _GROUPS},
    )
