"""Nets as one graph for raw grey faces; it includes preprocessing, views and the weights of an ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_models.configs.recipe import Views
from fer_models.inspection.activations import last_map
from fer_models.packed_nets import Member
from fer_models.training.evaluate import look

IN_GRAPH = ("none", "mean_image", "standardise", "scale", "normalise", "mean_threshold")
"""Preprocessings that a graph can contain; the others use OpenCV or scikit-image and are done before it."""


class ExportedGraph(nn.Module):
    """Faces uint8 [n, h, w] of the size that the nets were trained on -> probabilities [n, classes].

    For each name in `before` (preprocessings that a graph cannot contain) the preprocessed faces, float32 [n, h, w],
    are a further input.
    """

    def __init__(self, members: Sequence[Member], mean_image: NDArray[np.float32]) -> None:
        super().__init__()
        names = dict.fromkeys(member.preprocess for member in members)
        self.before = tuple(name for name in names if name not in IN_GRAPH)
        self.nets = nn.ModuleList(member.net for member in members)
        self._preprocess = [member.preprocess for member in members]
        self._views: list[Views] = [member.views for member in members]
        self._weights = [member.weight for member in members]
        self.register_buffer("mean_image", torch.tensor(mean_image)[None, None])
        self.eval()

    def forward(self, faces: Tensor, *preprocessed: Tensor) -> Tensor:
        """[n, h, w] -> [n, classes]."""
        parts = [weight * _mean([net(x) for x in views]) for net, views, weight in self._views_of(faces, preprocessed)]
        return torch.stack(parts).sum(0)

    def explained(self, layers: Sequence[nn.Module], faces: Tensor, *preprocessed: Tensor) -> tuple[Tensor, Tensor]:
        """[n, h, w] -> [n, classes], and the Grad-CAM of the most probable class: [n, h, w] in 0..1.

        `layers` are the layers with the nets' last feature maps.
        """
        parts, maps = [], []
        seen = self._views_of(faces, preprocessed)
        for layer, (net, (first, *others), weight) in zip(layers, seen, strict=True):
            logits, looked = _grad_cam(net, layer, first)
            parts.append(weight * _mean([logits, *map(net, others)]))
            maps.append(weight * _to_one(F.interpolate(looked, size=faces.shape[1:], mode="bilinear")))
        return torch.stack(parts).sum(0), _to_one(torch.stack(maps).sum(0))[:, 0]

    def _views_of(
        self, faces: Tensor, preprocessed: Sequence[Tensor]
    ) -> Iterator[tuple[nn.Module, list[Tensor], float]]:
        """Each net with its inputs, and the weight of its prediction."""
        grey, before = faces.float().unsqueeze(1), dict(zip(self.before, preprocessed, strict=True))
        for net, name, views, weight in zip(self.nets, self._preprocess, self._views, self._weights, strict=True):
            inside = name not in before
            x = _preprocessed(grey, name, self.get_buffer("mean_image")) if inside else before[name].unsqueeze(1)
            yield net, list(look(x, views)), weight


def explained_graph(graph: ExportedGraph, faces: Tensor, *preprocessed: Tensor) -> nn.Module:
    """`graph.explained` as a graph with forward operations only, for formats without gradients.

    The gradient is computed from the logit back to the last feature map, after which no net has a convolution. `faces`
    are example inputs, two or more.
    """
    from torch._decomp import get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    aten = torch.ops.aten
    backward = (aten.max_pool2d_with_indices_backward, aten.native_batch_norm_backward, aten.threshold_backward)
    as_forward: dict[Any, Any] = {
        **get_decompositions(backward),
        aten.avg_pool2d_backward.default: _average_pool_backward,
        aten._adaptive_avg_pool2d_backward.default: _adaptive_pool_backward,
    }
    graph.requires_grad_(False)
    layers = [last_map(net) for net in graph.nets]

    def explained(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return graph.explained(layers, *inputs)

    return make_fx(explained, as_forward, "symbolic", _allow_non_fake_inputs=True)(faces, *preprocessed)


def _average_pool_backward(
    gradient: Tensor, x: Tensor, kernel: list[int], stride: list[int], *_others: object
) -> Tensor:
    """Without padding: each pixel of a window gets the same share of the window's gradient."""
    channels, rows, columns = x.shape[1], *kernel
    share = gradient.new_full((channels, 1, rows, columns), 1 / (rows * columns))
    spread = F.conv_transpose2d(gradient, share, stride=stride or kernel, groups=channels)
    return F.pad(spread, (0, x.shape[3] - spread.shape[3], 0, x.shape[2] - spread.shape[2]))


def _adaptive_pool_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """Each pixel of a window gets the same share of the window's gradient."""
    rows, columns = (_windows(small, large) for small, large in zip(gradient.shape[2:], x.shape[2:], strict=True))
    return rows.T @ gradient @ columns


def _windows(small: int, large: int) -> Tensor:
    """The means that pool `large` pixels to `small`: [small, large]."""
    ends = [(place * large // small, -(-(place + 1) * large // small)) for place in range(small)]
    return torch.tensor([[(first <= x < last) / (last - first) for x in range(large)] for first, last in ends])


def _grad_cam(net: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the Grad-CAM (Selvaraju et al. 2017) of the largest one for the layer: [n, 1, h, w]."""
    seen: list[Tensor] = []

    def from_here(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # the next layer may write into it

    with torch.enable_grad():
        handle = layer.register_forward_hook(from_here)
        logits = net(x)
        handle.remove()
        (gradient,) = torch.autograd.grad(logits.amax(1).sum(), seen[-1])
    maps = seen[-1].detach()
    return logits.detach(), (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()


def _mean(logits: list[Tensor]) -> Tensor:
    """The mean of the probabilities."""
    return torch.stack([one.softmax(1) for one in logits]).mean(0)


def _to_one(maps: Tensor) -> Tensor:
    """Each face's map scaled to a maximum of 1; a map of zeros stays."""
    return maps / maps.amax((1, 2, 3), keepdim=True).clamp_min(1e-12)


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
