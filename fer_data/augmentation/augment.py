"""Augmentation of a whole batch at once, on the device that has it.

Shapes: images [n, height, width]. Every random number is drawn per image from one explicit generator.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_data.augmentation.augment_config import ERASED_AREA, ERASED_ASPECT, LEAST_BLUR_SIGMA, AugmentConfig

_BLUR_REACH = 3.5  # standard deviations, as in albumentations, which follows Pillow
_DRAWN_AT_ONCE = 16
_POOL_PIXELS = 2**20


class _Uniform:
    """Random values per image, from the given rows: each call uses the next row and returns [n] float32."""

    def __init__(self, rows: Tensor) -> None:
        self._rows, self.taken = rows, 0

    def between(self, low: float, high: float) -> Tensor:
        row = self._rows[self.taken % len(self._rows)]
        self.taken += 1
        return low + (high - low) * row

    def below(self, limit: int) -> Tensor:
        """Integers 0..limit-1, [n] int64."""
        return (self.between(0, 1) * limit).long()


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Augment each image independently.

    Args:
        images: [n, height, width] uint8, or float32 on the same scale.
        config: the variations and their ranges.
        generator: a CPU generator, the only source of randomness.

    Returns:
        [n, 1, height, width] float32, in 0..255 if the images are uint8; equal to the images if no variation is on.
    """
    return vary(images, config, draw_rows(len(images), config, generator).to(images.device))


def draw_rows(n: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Draw the random numbers that `vary` needs for n images: [rows, n] float32 in 0..1, on the CPU."""
    needed = _rows_needed(config)
    shape = (_DRAWN_AT_ONCE, n)
    blocks = [torch.rand(shape, generator=generator).flip(0) for _ in range(0, needed, _DRAWN_AT_ONCE)]
    return torch.cat(blocks)[:needed] if blocks else torch.empty(0, n)


@lru_cache(maxsize=64)
def _rows_needed(config: AugmentConfig) -> int:
    """The number of rows that `vary` uses, counted by augmenting one image."""
    draw = _Uniform(torch.zeros(1, 1))
    _vary(torch.zeros(1, 8, 8, dtype=torch.uint8), config, draw)
    return draw.taken


def vary(images: Tensor, config: AugmentConfig, rows: Tensor) -> Tensor:
    """`augment` with the random numbers of `draw_rows`, moved to the images' device. Does not wait for a GPU."""
    return _vary(images, config, _Uniform(rows))


def _vary(images: Tensor, config: AugmentConfig, draw: _Uniform) -> Tensor:
    # `varied` is changed in place below; _move never returns the memory of `images`.
    varied = _move(_crop(images, config.crop_pad, draw) if config.crop_pad else images, config, draw)
    if config.blur:
        varied = _blur(varied, config, draw)
    if config.brightness or config.contrast or config.noise:
        _expose(varied, config, draw)
        if images.dtype == torch.uint8:
            varied.clamp_(0, 255)
    if config.cutout:
        _cut_out(varied, config, draw)
    if config.erase:
        _erase(varied, config.erase, draw)
    return varied.unsqueeze(1)


def _move(images: Tensor, config: AugmentConfig, draw: _Uniform) -> Tensor:
    """Mirror and warp, in one pass if both are on: [n, h, w] float32."""
    mirrored = draw.between(0, 1) < config.flip if config.flip else None
    if not config.moves:
        if mirrored is None:
            return images.float() if images.dtype == torch.uint8 else images.clone()
        moved, number = images.float(), torch.arange(len(images), device=images.device)
        # Faster than torch.where; assignment with a mask would wait for a GPU.
        return torch.cat((moved, moved.flip(-1))).index_select(0, number + len(images) * mirrored)
    affine = _affine(images, config, draw)
    if mirrored is not None:
        affine[:, 0] *= torch.where(mirrored, -1.0, 1.0).unsqueeze(1)
    return F.grid_sample(
        images.float().unsqueeze(1), _grid(affine, images), mode="bilinear", padding_mode="border", align_corners=False
    )[:, 0]


def _affine(images: Tensor, config: AugmentConfig, draw: _Uniform) -> Tensor:
    """[n, 2, 3]: maps each point of the result to its point in the original; both axes have -1..1 across the image."""
    height, width = images.shape[-2:]
    angle = draw.between(-1, 1) * math.radians(config.rotate_deg)
    size = 1 + draw.between(-1, 1) * config.scale
    right, down = (2 * config.shift * draw.between(-1, 1) for _ in range(2))
    slant = (draw.between(-1, 1) * math.radians(config.shear_deg)).tan()
    cosine, sine = angle.cos() / size, angle.sin() / size
    across = torch.stack((cosine, -(sine + slant * cosine) * height / width, -right), dim=1)
    along = torch.stack((sine * width / height, cosine - slant * sine, -down), dim=1)
    return torch.stack((across, along), dim=1)


def _grid(affine: Tensor, images: Tensor) -> Tensor:
    """`F.affine_grid` of [n, 2, 3] as [n, h, w, 2], five times as fast: each coordinate sums only three terms."""
    n, height, width = images.shape
    x, y = (((2 * torch.arange(side, device=images.device) + 1) / side - 1).view(-1, 1) for side in (width, height))
    first_row = (affine[:, None, :, 0] * x + affine[:, None, :, 2]).view(n, 1, 2 * width)
    step = affine[:, None, :, 1].expand(-1, width, -1).reshape(n, 1, 2 * width)
    return torch.addcmul(first_row, y, step).view(n, height, width, 2)


def _crop(images: Tensor, pad: int, draw: _Uniform) -> Tensor:
    height, width = images.shape[-2:]
    windows = F.pad(images, (pad, pad, pad, pad)).unfold(1, height, 1).unfold(2, width, 1)
    number = torch.arange(len(images), device=images.device)
    return windows[number, draw.below(2 * pad + 1), draw.below(2 * pad + 1)]


def _blur(images: Tensor, config: AugmentConfig, draw: _Uniform) -> Tensor:
    chosen = draw.between(0, 1) < config.blur
    sigma = torch.where(chosen, draw.between(LEAST_BLUR_SIGMA, config.blur_sigma), LEAST_BLUR_SIGMA).view(-1, 1)
    rows, columns = (_blur_matrix(sigma, config.blur_sigma, side) for side in images.shape[-2:])
    return torch.bmm(torch.bmm(rows, images), columns.transpose(1, 2))


def _blur_matrix(sigma: Tensor, largest: float, side: int) -> Tensor:
    """[n, side, side]: the weight of each input pixel of a line (second axis) in each output pixel (first axis)."""
    reach = min(math.floor(_BLUR_REACH * largest), side - 1)
    distance = torch.arange(reach + 1, device=sigma.device)
    weight = torch.where(distance <= (_BLUR_REACH * sigma).floor(), (-0.5 * (distance / sigma) ** 2).exp(), 0)
    weight /= 2 * weight.sum(1, keepdim=True) - weight[:, :1]
    return (weight @ _paths(side, reach, sigma.device)).view(-1, side, side)


@cache  # of any size: a captured graph reads these tensors, and does not keep them
def _paths(side: int, reach: int, device: torch.device) -> Tensor:
    """[reach + 1, side * side]: for each distance, the number of paths of that length between two pixels of a line.

    The line is reflected about its outermost pixels, as OpenCV's BORDER_REFLECT_101 does.
    """
    to, source = torch.arange(side).view(-1, 1), torch.arange(side)
    never = reach + 1
    around_start = torch.where(source > 0, to + source, never)
    around_end = torch.where(source < side - 1, 2 * (side - 1) - to - source, never)
    paths = torch.stack((around_start, (to - source).abs(), around_end))
    length = torch.arange(reach + 1).view(-1, 1, 1, 1)
    return (paths == length).sum(1).float().flatten(1).to(device)


def _expose(images: Tensor, config: AugmentConfig, draw: _Uniform) -> None:
    """Change contrast and brightness, and add noise."""
    if config.brightness or config.contrast:
        factor = (1 + config.contrast * draw.between(-1, 1)).view(-1, 1, 1)
        added = (255 * config.brightness * draw.between(-1, 1)).view(-1, 1, 1)
        images.mul_(factor).add_(added)
    if config.noise:
        deviation = torch.where(
            draw.between(0, 1) < config.noise_probability, draw.between(config.noise_min, config.noise), 0
        )
        images.addcmul_(_noise("normal", images, draw), deviation.view(-1, 1, 1))
        if config.engine == "batched_int64":
            noisy = (deviation > 0).view(-1, 1, 1)
            images.copy_(torch.where(noisy, images.clamp(0, 1).floor(), images))


def _noise(kind: Literal["normal", "uniform"], like: Tensor, draw: _Uniform) -> Tensor:
    """Noise [n, h, w]: for each image a part of the pool, from a random offset on."""
    _, height, width = like.shape
    stretches = _pool(kind, like.device).unfold(0, height * width, 1)
    return stretches[draw.below(len(stretches))].view(like.shape)


@cache  # as `_paths`
def _pool(kind: Literal["normal", "uniform"], device: torch.device) -> Tensor:
    """2^20 random numbers, drawn once per process: new ones for each batch would double the time of augmentation."""
    draw = torch.randn if kind == "normal" else torch.rand
    return draw(_POOL_PIXELS, generator=torch.Generator().manual_seed(0)).to(device)


def _cut_out(images: Tensor, config: AugmentConfig, draw: _Uniform) -> None:
    height, width = images.shape[-2:]
    rows, columns = min(config.cutout_size, height), min(config.cutout_size, width)
    hole = torch.arange(rows, device=images.device).view(-1, 1) * width + torch.arange(columns, device=images.device)
    corners = [draw.below(height - rows + 1) * width + draw.below(width - columns + 1) for _ in range(config.cutout)]
    black = (torch.stack(corners, dim=1).unsqueeze(2) + hole.view(1, 1, -1)).flatten(1)
    images.flatten(1).scatter_(1, black, 0)


def _erase(images: Tensor, probability: float, draw: _Uniform) -> None:
    """Fill one random rectangle of each chosen image with uniform noise."""
    height, width = images.shape[-2:]
    chosen = (draw.between(0, 1) < probability).float()
    area = draw.between(*ERASED_AREA)
    aspect = draw.between(*(math.log(limit) for limit in ERASED_ASPECT)).exp()
    rows = inside(height, (area * aspect).sqrt(), draw.between(0, 1))
    columns = inside(width, (area / aspect).sqrt(), draw.between(0, 1))
    erased = (chosen.unsqueeze(1) * rows).unsqueeze(2) * columns.unsqueeze(1)
    images.lerp_(_noise("uniform", images, draw).mul_(255), erased)


def inside(side: int, fraction: Tensor, place: Tensor) -> Tensor:
    """[n, side] float32: 1 in a window of that fraction of the side (at most all of it), else 0.

    `place` [n], 0..1, is the position of the window along the side.
    """
    length = (side * fraction).round().clamp(1, side)
    start = (place * (side - length + 1)).floor()
    offset = torch.arange(side, device=fraction.device) - start.unsqueeze(1)
    return ((offset >= 0) & (offset < length.unsqueeze(1))).float()
