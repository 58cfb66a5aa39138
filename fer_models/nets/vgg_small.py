"""The VGG report's nets from scratch: vgg_small, 3,060,071 parameters with 7 classes, and its tuned form.

The tuned form's published code names no axis for Keras's max_norm(4), which then limits each column of three weights
of a kernel and has no effect. Here it limits each filter, as Keras's documentation advises; FC6 and FC7 have it too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import VGGSmallConfig, VGGSmallTunedConfig
from fer_models.parts.initialisers import glorot
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import KERAS_EPS, KERAS_MOMENTUM, Dropout
from fer_models.parts.staged import StagedNet, WeightLimits

_BLOCKS = {"block1": (32, 32), "block2": (64, 64), "block3": (128, 128, 128)}
_LAST_MAP = 128 * 6 * 6
_DROPOUTS = ("block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2", "fc6")
_MAX_NORM_LAYERS = (
    *("backbone." + name for name in ("block1_conv1", "block1_conv2", "block2_conv1", "block3_conv1", "block3_conv2")),
    *("neck.fc6", "neck.fc7"),
)
_L2_LAYERS = (
    *(f"backbone.block3_conv{number}" for number in (1, 2, 3)),
    *("neck.fc6", "neck.fc7", "head"),
)


def build(
    config: VGGSmallConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """vgg_small with Keras's initialization."""
    return _assemble(config, classes, mean_image, generator)


def build_tuned(
    config: VGGSmallTunedConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """vgg_small_tuned with Keras's initialization: convolution, activation, batch norm, dropout."""
    limits = WeightLimits(config.max_norm, _MAX_NORM_LAYERS, config.l2, _L2_LAYERS)
    dropouts = dict(zip(_DROPOUTS, config.dropouts, strict=True))
    return _assemble(config, classes, mean_image, generator, dropouts, limits)


def _assemble(
    config: VGGSmallConfig | VGGSmallTunedConfig,
    classes: int,
    mean_image: npt.NDArray[np.float32],
    generator: torch.Generator,
    dropouts: Mapping[str, float] | None = None,
    limits: WeightLimits | None = None,
) -> StagedNet:
    backbone, neck = OrderedDict[str, nn.Module](), OrderedDict[str, nn.Module]()
    channels = config.channels
    for block, widths in _BLOCKS.items():
        for number, width in enumerate(widths, 1):
            _add(backbone, f"{block}_conv{number}", nn.Conv2d(channels, width, 3, padding=1), config, dropouts)
            channels = width
        backbone[f"{block}_pool"] = nn.MaxPool2d(2)
    _add(neck, "fc6", nn.Linear(_LAST_MAP, 512), config, dropouts)
    _add(neck, "fc7", nn.Linear(512, 512), config, dropouts)
    net = StagedNet(
        FaceInput(config.normalisation, mean_image, size=config.size),
        nn.Sequential(backbone),
        nn.Linear(512, classes),
        {block: tuple(name for name in backbone if name.startswith(block)) for block in _BLOCKS},
        neck=nn.Sequential(neck),
        limits=limits,
    )
    glorot(net, generator)
    return net


def _add(
    layers: OrderedDict[str, nn.Module],
    name: str,
    layer: nn.Conv2d | nn.Linear,
    config: VGGSmallConfig | VGGSmallTunedConfig,
    dropouts: Mapping[str, float] | None,
) -> None:
    """Append the layer, its activation, and in the tuned form its batch norm and dropout."""
    layers[name] = layer
    layers[f"{name}_activation"] = nn.ReLU() if config.activation == "relu" else nn.LeakyReLU(0.01)
    if dropouts is None:
        return
    norm = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
    layers[f"{name}_norm"] = norm(len(layer.weight), eps=KERAS_EPS, momentum=KERAS_MOMENTUM)
    if name in dropouts:
        layers[f"{name}_dropout"] = Dropout(dropouts[name])
