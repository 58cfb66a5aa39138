"""Augmentation of a whole batch at once, on whatever device holds it.

Shapes: images [n, height, width]; every random number is drawn per image from one explicit generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_data.augment_config import AugmentConfig

# Zhong et al. 2017 (arXiv:1708.04896) erase 2-40 % of a photograph; here half of that hides a whole mouth.
_ERASED_AREA = (0.02, 0.20)
_MAX_ERASED_LOG_ASPECT = math.log(1 / 0.3)


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Vary each image on its own.

    Args:
        images: [n, height, width] uint8.
        config: what may vary, and how far.
        generator: source of all randomness; on the images' device or the CPU.

    Returns:
        [n, 1, height, width] float32, 0..255; exactly the images where everything is off.
    """
    if config.flip:
        mirrored = _uniform(images, 0, 1, generator) < config.flip
        images = torch.where(mirrored.view(-1, 1, 1), images.flip(-1), images)
    varied = images.unsqueeze(1).float()
    if config.rotate_deg or config.shift or config.scale:
        varied = _move(varied, _affine(images, config, generator))
    if config.erase:
        varied = _erase(varied, config.erase, generator)
    return varied


def _uniform(images: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Return one number in [low, high) per image: [n] float32 on the images' device."""
    drawn = torch.rand(len(images), generator=generator, device=generator.device)
    return (low + (high - low) * drawn).to(images.device)


def _affine(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Return [n, 2, 3]: where in the original (-1..1 across its sides) a point of the result is looked up."""
    height, width = images.shape[-2:]
    angle = _uniform(images, -1, 1, generator) * math.radians(config.rotate_deg)
    size = 1 + _uniform(images, -1, 1, generator) * config.scale
    right, down = (2 * config.shift * _uniform(images, -1, 1, generator) for _ in range(2))
    cosine, sine = angle.cos() / size, angle.sin() / size
    across = torch.stack((cosine, -sine * height / width, -right), dim=1)
    along = torch.stack((sine * width / height, cosine, -down), dim=1)
    return torch.stack((across, along), dim=1)


def _move(images: Tensor, affine: Tensor) -> Tensor:
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Fill one random rectangle of each chosen image [n, 1, height, width] with uniform noise."""
    height, width = images.shape[-2:]
    chosen = _uniform(images, 0, 1, generator) < probability
    area = _uniform(images, *_ERASED_AREA, generator)
    aspect = (_uniform(images, -1, 1, generator) * _MAX_ERASED_LOG_ASPECT).exp()
    rows = _inside(images, height, (area * aspect).sqrt(), generator)
    columns = _inside(images, width, (area / aspect).sqrt(), generator)
    erased = (chosen.view(-1, 1, 1) & rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
    noise = 255 * torch.rand(images.shape, generator=generator, device=generator.device)
    return torch.where(erased, noise.to(images.device), images)


def _inside(images: Tensor, side: int, fraction: Tensor, generator: torch.Generator) -> Tensor:
    """Return [n, side] bool: a run of that fraction of the side (at most all of it), somewhere along it."""
    length = (side * fraction).round().clamp(1, side)
    start = (_uniform(images, 0, 1, generator) * (side - length + 1)).floor()
    position = torch.arange(side, device=images.device)
    offset = position - start.unsqueeze(1)
    return (offset >= 0) & (offset < length.unsqueeze(1))
