"""A net or an ensemble in a folder with everything that it needs: weights, settings, mean image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from fer_models.configs.recipe import Views

DESCRIPTION = "model.json"
MEAN_IMAGE = "mean_image.npy"

Preprocess = Callable[[NDArray[np.uint8], str, NDArray[np.float32]], NDArray[Any]]
"""Faces [n, h, w], name of a preprocessing, mean image -> preprocessed faces."""


@dataclass(frozen=True)
class Member:
    """One net, the preprocessing of its faces, and the weight of its prediction."""

    net: nn.Module
    preprocess: str
    views: Views
    weight: float


class PackedNets:
    """The loaded nets of a folder. Raises ModelError for a damaged file."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        self.about: dict[str, Any] = about
        self.classes: tuple[str, ...] = tuple(about["classes"])
        self.resize_method = about["resize_method"]
        self.mean_image: NDArray[np.float32] = np.load(folder / MEAN_IMAGE, allow_pickle=False)
        self.members = [self._load(folder, member) for member in about["members"]]

    def predict(self, faces: NDArray[np.uint8], preprocess: Preprocess, device: str = "cpu") -> NDArray[np.float32]:
        """Probabilities [n, classes] of faces [n, h, w] that have the mean image's size."""
        from fer_models.training.evaluate import predict

        if not len(faces):
            return np.empty((0, len(self.classes)), np.float32)
        parts = []
        for member in self.members:
            ready = faces if member.preprocess == "none" else preprocess(faces, member.preprocess, self.mean_image)
            parts.append(member.weight * predict(member.net, ready, device=device, views=member.views))
        return np.asarray(np.sum(parts, axis=0), np.float32)

    def _load(self, folder: Path, member: dict[str, Any]) -> Member:
        import torch
        from pydantic import TypeAdapter

        from fer_models import NetConfig
        from fer_models.nets.registry import build
        from fer_models.training.weights import load_weights

        config = TypeAdapter[Any](NetConfig).validate_python(member["net"])
        net = build(config, classes=len(self.classes), mean_image=self.mean_image, generator=torch.Generator())
        load_weights(net, folder / member["weights"])
        return Member(net.eval(), member["preprocess"], member["views"], member["weight"])
