"""Mixing the images of a batch: each image with another one, and its label's share with the other's.

Shapes: images [n, 1, height, width] float32; labels [n, classes] float32, each row summing to 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fer_data.augmentation.augment import inside
from fer_data.augmentation.augment_config import AugmentConfig


def mix(images: Tensor, labels: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix every image with a random one of the batch, by mixup or cutmix; where both are on, by one chosen at random.

    mixup (Zhang et al. 2018, arXiv:1710.09412) fades two images into each other; cutmix (Yun et al. 2019,
    arXiv:1905.04899) pastes a rectangle of one into the other, where it keeps its place. The share of each
    image is drawn from Beta(alpha, alpha); cutmix rounds it to whole pixels, and the rectangle is inside.

    Args:
        images: [n, 1, height, width] on any device.
        labels: [n, classes] on the same device.
        config: mixup and cutmix are the alphas.
        generator: a CPU generator.
    """
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
    n, height, width = len(images), *images.shape[-2:]
    partner = torch.from_numpy(rng.permutation(n)).to(images.device)
    if not config.cutmix or (config.mixup and rng.random() < 0.5):
        share = _on(images, rng.beta(config.mixup, config.mixup, n))
        mixed = images.lerp(images[partner], share.view(n, 1, 1, 1))
    else:
        side = _on(images, rng.beta(config.cutmix, config.cutmix, n)).sqrt()
        rows, columns = (inside(length, side, _on(images, rng.random(n))) for length in (height, width))
        pasted = (rows.unsqueeze(2) * columns.unsqueeze(1)).unsqueeze(1)
        share, mixed = pasted.mean((1, 2, 3)), images.lerp(images[partner], pasted)
    return mixed, labels.lerp(labels[partner], share.unsqueeze(1))


def _on(images: Tensor, numbers: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32)).to(images.device)
