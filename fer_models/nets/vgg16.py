"""VGG-16 (Simonyan and Zisserman 2015), whole, and cut after block 4 as in the VGG report."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import VGG16Config, VGG16CutConfig
from fer_models.parts.grey_stem import grey_conv
from fer_models.parts.initialisers import glorot, he
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import KERAS_EPS, KERAS_MOMENTUM, Dropout
from fer_models.parts.staged import StagedNet, WeightLimits

_CUT_LIMITED = ("neck.fc6", "neck.fc7")


def build(
    config: VGG16Config, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """VGG-16, with Keras's initialization or, with batch norm, He's; its last map is flattened or averaged."""
    layers = OrderedDict[str, nn.Module](features=_features(batch_norm=config.norm == "batch"))
    neck, features = nn.Sequential(), 512
    if config.classifier == "average":
        layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    else:
        features = 4096
        neck = nn.Sequential(
            OrderedDict[str, nn.Module](
                fc6=nn.Linear(512 * (config.size // 32) ** 2, features),
                relu6=nn.ReLU(),
                dropout6=Dropout(config.dropout),
                fc7=nn.Linear(features, features),
                relu7=nn.ReLU(),
            )
        )
    head = nn.Sequential(Dropout(config.dropout), nn.Linear(features, classes))
    net = _assemble(config, nn.Sequential(layers), neck, head, mean_image)
    (he if config.norm == "batch" else glorot)(net, generator)
    return _with_stem(net, config.channels)


def build_cut(
    config: VGG16CutConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """VGG-16 through block 4's pool, FC2048 twice with batch norm; max-norm and L2 are those of its published code."""
    neck = OrderedDict[str, nn.Module](
        fc6=nn.Linear(512 * (config.size // 16) ** 2, 2048),
        relu6=nn.ReLU(),
        norm6=nn.BatchNorm1d(2048, eps=KERAS_EPS, momentum=KERAS_MOMENTUM),
        dropout6=Dropout(config.dropout),
        fc7=nn.Linear(2048, 2048),
        relu7=nn.ReLU(),
        norm7=nn.BatchNorm1d(2048, eps=KERAS_EPS, momentum=KERAS_MOMENTUM),
    )
    backbone = nn.Sequential(OrderedDict[str, nn.Module](features=_features(batch_norm=False, blocks=4)))
    limits = WeightLimits(config.max_norm, _CUT_LIMITED, config.l2, (*_CUT_LIMITED, "head"))
    net = _assemble(config, backbone, nn.Sequential(neck), nn.Linear(2048, classes), mean_image, limits)
    glorot(net, generator)
    return _with_stem(net, config.channels)


def _features(*, batch_norm: bool, blocks: int = 5) -> nn.Sequential:
    """torchvision's convolutions through the pool of the last of `blocks`."""
    from torchvision.models import vgg

    layers: nn.Sequential = vgg.make_layers(vgg.cfgs["D"], batch_norm=batch_norm)
    pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return layers[: pools[blocks - 1] + 1]


def _assemble(
    config: VGG16Config | VGG16CutConfig,
    backbone: nn.Sequential,
    neck: nn.Sequential,
    head: nn.Module,
    mean_image: npt.NDArray[np.float32],
    limits: WeightLimits | None = None,
) -> StagedNet:
    stages: dict[str, tuple[str, ...]] = {}
    names: list[str] = []
    for name, layer in backbone.get_submodule("features").named_children():
        names.append(f"features.{name}")
        if isinstance(layer, nn.MaxPool2d):
            stages[f"block{len(stages) + 1}"] = tuple(names)
            names = []
    face_input = FaceInput(config.normalisation, mean_image, size=config.size, channels=config.channels)
    return StagedNet(face_input, backbone, head, stages, neck=neck, limits=limits)


def _with_stem(net: StagedNet, channels: int) -> StagedNet:
    features = net.backbone.get_submodule("features")
    stem = features.get_submodule("0")
    if channels == 1 and isinstance(stem, nn.Conv2d):
        features.register_module("0", grey_conv(stem))
    return net
