"""Builds a net, and the arguments of `fit`, from a configuration and faces."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fer_data import Faces
from fer_models.nets.registry import build
from sweeps.config import TrialConfig


def new_net(config: TrialConfig, faces: Faces, seed: int = 0) -> nn.Module:
    """The configuration's net for these faces, initialised from `seed`, on the CPU. Raises ModelError."""
    generator = torch.Generator().manual_seed(seed)
    return build(config.net, classes=len(faces.classes), mean_image=faces.mean_image(), generator=generator)


def fit_arguments(config: TrialConfig, faces: Faces) -> dict[str, Any]:
    """The arguments of `fit` from a configuration: recipe, transfer, class counts, precision and memory format."""
    return {
        "recipe": config.recipe,
        "transfer": config.transfer,
        "class_counts": faces.train.counts(len(faces.classes)),
        "precision": "fp32" if config.precision == "auto" else config.precision,
        "memory_format": "contiguous" if config.memory_format == "auto" else config.memory_format,
    }
