"""Nets as one graph that takes grey faces as they are: preprocessing, views and weights of an ensemble are inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_models.configs.recipe import Views
from fer_models.errors import ModelError
from fer_models.packed_nets import Member
from fer_models.training.evaluate import look

IN_GRAPH = ("none", "mean_image", "standardise", "scale", "normalise", "mean_threshold")
"""Preprocessings that a graph can express; the others are programs of OpenCV and scikit-image."""


class ExportedGraph(nn.Module):
    """Faces uint8 [n, h, w] of the size that the nets were trained on -> probabilities [n, classes].

    Raises:
        ModelError: a member's preprocessing cannot be expressed as a graph.
    """

    def __init__(self, members: Sequence[Member], mean_image: NDArray[np.float32]) -> None:
        super().__init__()
        for member in members:
            if member.preprocess not in IN_GRAPH:
                raise ModelError(
                    f"preprocessing '{member.preprocess}' cannot be part of a graph (only {', '.join(IN_GRAPH)}); "
                    "use the net by its run or registered model, or export it with --format safetensors"
                )
        self.nets = nn.ModuleList(member.net for member in members)
        self._preprocess = [member.preprocess for member in members]
        self._views: list[Views] = [member.views for member in members]
        self._weights = [member.weight for member in members]
        self.register_buffer("mean_image", torch.tensor(mean_image)[None, None])
        self.eval()

    def forward(self, faces: Tensor) -> Tensor:
        """[n, h, w] -> [n, classes]."""
        grey = faces.float().unsqueeze(1)
        answer: Tensor | None = None
        for net, name, views, weight in zip(self.nets, self._preprocess, self._views, self._weights, strict=True):
            ready = _preprocessed(grey, name, self.get_buffer("mean_image"))
            seen = [net(view).softmax(1) for view in look(ready, views)]
            part = weight * torch.stack(seen).mean(0)
            answer = part if answer is None else answer + part
        assert answer is not None
        return answer


def _preprocessed(x: Tensor, name: str, mean_image: Tensor) -> Tensor:
    """As `fer_data.augmentation.preprocess`, on [n, 1, h, w]."""
    inside = (1, 2, 3)
    if name == "none":
        return x
    if name == "mean_image":
        return 127.5 + x - mean_image
    mean = x.mean(inside, keepdim=True)
    if name == "mean_threshold":
        return 255.0 * (x > mean)
    if name == "normalise":
        least, most = x.amin(inside, keepdim=True), x.amax(inside, keepdim=True)
        return 255 * (x - least) / (most - least).clamp_min(1)
    deviation = ((x - mean) ** 2).mean(inside, keepdim=True).sqrt()
    varied = (deviation > 0).float()
    share = varied / (deviation + (1 - varied))  # 1 / deviation, 0 for a constant face
    return 127.5 + 64 * (x - mean) * share if name == "standardise" else 64 * x * share
