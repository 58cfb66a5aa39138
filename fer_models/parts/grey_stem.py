"""First layers for grey faces, made from first layers for colour images.

Legend: o output channels, k kernel size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def to_grey_stem(weight: Tensor) -> Tensor:
    """[o, 3, k, k] -> [o, 1, k, k]: the sum over the colours; on a grey face it equals `weight` on the face repeated
    three times."""
    return weight.sum(dim=1, keepdim=True)


@torch.no_grad()
def grey_conv(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution of one channel that equals `conv` on a grey face repeated three times; `conv` is not changed."""
    grey = copy.deepcopy(conv)
    grey.in_channels = 1
    grey.weight = nn.Parameter(to_grey_stem(conv.weight))
    return grey
