"""Mixing the images of a batch: each image with another one, and their labels in the same proportion.

Shapes: images [n, 1, height, width] float32; labels [n, classes] float32, each row sums to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fer_data.augmentation.augment import inside
from fer_data.augmentation.augment_config import AugmentConfig


class Mixing(NamedTuple):
    """The random choices for a batch of n images: the partner of each image, [n] int64, and its part in the result.

    `numbers` is [1, n] float32 for mixup: the partner's share. It is [3, n] for cutmix: the area of the rectangle as a
    fraction of the image, and its position along height and width.
    """

    partner: Tensor
    numbers: Tensor


def draw_mixing(n: int, config: AugmentConfig, generator: torch.Generator) -> Mixing:
    """Draw the random choices that `mix_drawn` needs for n images: of mixup or cutmix, if both are on with equal odds.

    The share of each image is drawn from Beta(alpha, alpha), where alpha is `config.mixup` or `config.cutmix`. The
    generator and the results are on the CPU.
    """
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
    partner = torch.from_numpy(rng.permutation(n))
    if not config.cutmix or (config.mixup and rng.random() < 0.5):
        numbers = [rng.beta(config.mixup, config.mixup, n)]
    else:
        numbers = [rng.beta(config.cutmix, config.cutmix, n), rng.random(n), rng.random(n)]
    return Mixing(partner, torch.from_numpy(np.stack(numbers).astype(np.float32)))


def mix_drawn(images: Tensor, labels: Tensor, drawn: Mixing) -> tuple[Tensor, Tensor]:
    """Mix every image with its partner, by the choices of `draw_mixing`, on the images' device.

    mixup (Zhang et al. 2018, arXiv:1710.09412) averages two images with weights. cutmix (Yun et al. 2019,
    arXiv:1905.04899) copies a rectangle of one image into the other, to the same position; it rounds the share to whole
    pixels, and the rectangle is inside the image. Does not wait for a GPU.
    """
    partner, numbers = drawn
    if len(numbers) == 1:
        share = numbers[0]
        mixed = images.lerp(images[partner], share.view(-1, 1, 1, 1))
    else:
        side = numbers[0].sqrt()
        rows, columns = (
            inside(length, side, place) for length, place in zip(images.shape[-2:], numbers[1:], strict=True)
        )
        pasted = (rows.unsqueeze(2) * columns.unsqueeze(1)).unsqueeze(1)
        share, mixed = pasted.mean((1, 2, 3)), images.lerp(images[partner], pasted)
    return mixed, labels.lerp(labels[partner], share.unsqueeze(1))
