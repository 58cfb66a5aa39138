"""Builds a net from its configuration."""

from __future__ import annotations

from threading import Lock
from typing import assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs import net_config
from fer_models.configs.net_config import NetConfig
from fer_models.errors import ModelError
from fer_models.nets import (
    alexnet,
    compact_resnet,
    deep_cnn,
    efficientnet,
    face_resnet,
    googlenet,
    happy_sad,
    inception,
    joint,
    lenet,
    resnet,
    vgg16,
    vgg_small,
)

_drawing = Lock()
"""Held while layers draw an initialization of their own, which they do from the generator of the process."""


def build(
    config: NetConfig,
    *,
    classes: int,
    mean_image: npt.NDArray[np.float32],
    generator: torch.Generator,
) -> nn.Module:
    """A freshly initialised net on the CPU; equal generators give equal nets.

    The net maps float [n, 1, h, w] in 0..255 to logits [n, classes]; its first module resizes and normalises.
    It is also a `staged.Staged`.

    Raises:
        ModelError: fewer than two classes, a mean image that is not finite, or an optional package is missing.
    """
    _check(classes, mean_image)
    with _drawing, torch.random.fork_rng(devices=[]):
        return _build(config, classes, mean_image, generator)


def _build(
    config: NetConfig, classes: int, mean_image: npt.NDArray[np.float32], generator: torch.Generator
) -> nn.Module:
    match config:
        case net_config.LeNetConfig():
            return lenet.build(config, classes, mean_image, generator)
        case net_config.AlexNetConfig():
            return alexnet.build(config, classes, mean_image, generator)
        case net_config.GoogLeNetConfig():
            return googlenet.build(config, classes, mean_image, generator)
        case net_config.ResNet50V1Config():
            return resnet.build_v1(config, classes, mean_image, generator)
        case net_config.ResNet18Config() | net_config.ResNet34Config() | net_config.ResNet50Config():
            return resnet.build(config, classes, mean_image, generator)
        case net_config.InceptionV3Config():
            return inception.build(config, classes, mean_image, generator)
        case net_config.HappySadConfig():
            return happy_sad.build(config, classes, mean_image, generator)
        case net_config.DeepCNNConfig():
            return deep_cnn.build(config, classes, mean_image, generator)
        case net_config.VGGSmallConfig():
            return vgg_small.build(config, classes, mean_image, generator)
        case net_config.VGGSmallTunedConfig():
            return vgg_small.build_tuned(config, classes, mean_image, generator)
        case net_config.VGG16Config():
            return vgg16.build(config, classes, mean_image, generator)
        case net_config.VGG16CutConfig():
            return vgg16.build_cut(config, classes, mean_image, generator)
        case net_config.CompactResNetConfig():
            return compact_resnet.build(config, classes, mean_image, generator)
        case net_config.EfficientNetLite0Config():
            return efficientnet.build(config, classes, mean_image, generator)
        case net_config.FaceResNetConfig():
            return face_resnet.build(config, classes, mean_image, generator)
        case net_config.JointConfig():
            members = [_build(member, classes, mean_image, generator) for member in config.members]
            return joint.join(members, config.at, classes, generator)
    assert_never(config)


def count_parameters(net: nn.Module) -> int:
    """The number of trainable values; buffers (mean image, running statistics) are not counted."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def _check(classes: int, mean_image: npt.NDArray[np.float32]) -> None:
    if classes < 2:
        raise ModelError(f"classes: {classes}, expected 2 or more")
    if not np.isfinite(mean_image).all():
        raise ModelError("mean image: has NaN or infinite pixels; prepare the data again")
