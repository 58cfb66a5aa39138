"""GoogLeNet (Szegedy et al. 2015) as torchvision has it, with batch norm, trained as BVLC's Caffe model.

torchvision's "5x5" branch is a 3x3, its convolutions have batch norm where BVLC's have a bias initialised to .2,
and its auxiliary heads pool to 4x4 for every size of the face.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.net_config import GoogLeNetConfig
from fer_models.parts.grey_stem import grey_conv
from fer_models.parts.initialisers import caffe_xavier
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import StagedNet

_STAGES = {
    "stem": ("conv1", "maxpool1", "conv2", "conv3", "maxpool2"),
    "inception3": ("inception3a", "inception3b", "maxpool3"),
    "inception4": ("inception4a", "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4"),
    "inception5": ("inception5a", "inception5b"),
}
_AUXILIARY = {"inception4a": "aux1", "inception4d": "aux2"}


def build(
    config: GoogLeNetConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> StagedNet:
    """GoogLeNet with Caffe's initialization, with two auxiliary heads if their loss has a weight."""
    from torchvision import models

    whole = models.GoogLeNet(num_classes=classes, aux_logits=config.auxiliary_weight > 0, init_weights=False)
    caffe_xavier(whole, generator)
    parts = OrderedDict(whole.named_children())
    if config.channels == 1:
        whole.conv1.conv = grey_conv(whole.conv1.conv)
    auxiliary = {place: parts.pop(name) for place, name in _AUXILIARY.items() if name in parts}
    for head in auxiliary.values():
        head.dropout = Dropout(head.dropout.p)
    del parts["dropout"], parts["fc"]
    return StagedNet(
        FaceInput(config.normalisation, mean_image, size=config.size, channels=config.channels),
        nn.Sequential(parts),
        nn.Sequential(Dropout(config.dropout), whole.fc),
        _STAGES,
        auxiliary=auxiliary,
        auxiliary_weight=config.auxiliary_weight,
    )
