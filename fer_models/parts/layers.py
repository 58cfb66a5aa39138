"""Layers that torch lacks, or that are slow on a CPU there.

Legend: n images, c channels, h and w height and width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_common.own_draws import own_generator

KERAS_EPS = 1e-3
"""Added to the variance in Keras's batch norm."""
KERAS_MOMENTUM = 0.01
"""Share of a batch in the running statistics of Keras's batch norm; Keras calls this a momentum of 0.99."""

_LRN_SIZE = 5
_LRN_ALPHA = 1e-4
_LRN_BETA = 0.75


class LocalResponseNorm(nn.Module):
    """x / (1 + alpha / 5 * sum of x^2 over 5 neighbouring channels)^0.75 (Krizhevsky et al. 2012, 3.3).

    Equal to `F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)`, which goes through `avg_pool3d` and costs five
    times as much on a CPU, forward and backward. Computed in float32, returned in the type of x.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, h, w]."""
        result: Tensor = _LocalResponseNorm.apply(x)
        return result


class _LocalResponseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = x.float()
        base = _channel_window_sum(wide * wide).mul_(_LRN_ALPHA / _LRN_SIZE).add_(1)
        inverse_root = base.rsqrt_()
        factor = inverse_root.sqrt().mul_(inverse_root)  # base ** -0.75 without the slow pow
        ctx.save_for_backward(x, inverse_root, factor)
        return (wide * factor).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, inverse_root, factor = ctx.saved_tensors
        wide = x.float()
        through = gradients[0].float() * factor
        shared = _channel_window_sum((through * wide).mul_(inverse_root).mul_(inverse_root))
        slope = -2 * _LRN_BETA * _LRN_ALPHA / _LRN_SIZE
        gradient: Tensor = through.addcmul_(wide, shared, value=slope).to(x.dtype)
        return gradient


def _channel_window_sum(x: Tensor) -> Tensor:
    """Sum over channels i-2..i+2 of [n, c, h, w], c >= 3."""
    total = x.clone()
    for offset in (1, 2):
        total[:, offset:] += x[:, :-offset]
        total[:, :-offset] += x[:, offset:]
    return total


class Dropout(nn.Module):
    """Dropout that draws from `own_generator`; torch's own layer always draws from the generator of the process.

    On a CPU the mask takes 16 random bits per element: `probability` to within 1/65,536. torch's own draws a double per
    element, a tenth of AlexNet's whole step.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        if not self.training or self.probability == 0:
            return x
        if x.device.type != "cpu":
            keep = torch.empty_like(x).bernoulli_(1 - self.probability, generator=own_generator())
        else:
            words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64)
            words.random_(-(2**63), None, generator=own_generator())
            bits = words.view(torch.int16)[: x.numel()].view(x.shape)
            keep = (bits >= round(self.probability * 65536) - 32768).to(x.dtype)
        return x * keep.mul_(1 / (1 - self.probability))


def conv3x3(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv(x)` for a 3x3 convolution with padding 1, faster on a CPU if the map is 2x2.

    Then each output pixel depends on all four input pixels, so the convolution is four matrix products of the same
    input [n, 4 * c], one with each 2x2 corner of the kernel. oneDNN's own backward took 3 to 8 times as long
    (weights in channels_last, bf16).
    """
    if x.device.type != "cpu" or x.shape[2:] != (2, 2) or conv.bias is None:
        return conv(x)  # type: ignore[no-any-return]
    taps = conv.weight.to(x.dtype).permute(0, 2, 3, 1)
    corners = torch.stack([taps[:, 1 - y : 3 - y, 1 - x_ : 3 - x_] for y in (0, 1) for x_ in (0, 1)])
    pixels = x.permute(0, 2, 3, 1)
    groups = zip(pixels.chunk(conv.groups, dim=3), corners.chunk(conv.groups, dim=1), strict=True)
    outputs = [F.linear(part.flatten(1), kernel.flatten(2).flatten(0, 1)) for part, kernel in groups]
    joined = torch.cat([output.view(x.shape[0], 2, 2, -1) for output in outputs], dim=3)
    return (joined + conv.bias.to(x.dtype)).permute(0, 3, 1, 2)
