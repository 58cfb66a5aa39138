"""Shuffled, augmented train batches, read from the memory map one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fer_common.captured import Captured
from fer_common.transfers import copy_together
from fer_data.augmentation.augment import draw_rows, vary
from fer_data.augmentation.augment_config import AugmentConfig
from fer_data.augmentation.mix import Mixing, draw_mixing, mix_drawn
from fer_data.faces import DataError, SoftLabels, Split

Batch = tuple[Tensor, Tensor]


_RESIDENT_BYTES = 2**30
"""A GPU keeps all images of a split up to this size; larger splits are copied to it batch by batch."""

_resident: WeakKeyDictionary[Split, dict[torch.device, Tensor]] = WeakKeyDictionary()


class _Drawn(NamedTuple):
    """The random choices for one batch.

    `plain` and `varied` are the indices of the images that are used unchanged and augmented, `rows` the random numbers
    of the augmentation. `rows` is empty for albumentations; `partner` and `mixing` are empty if images are not mixed.
    """

    plain: Tensor
    varied: Tensor
    rows: Tensor
    partner: Tensor
    mixing: Tensor


def batches_per_epoch(split: Split, batch_size: int, augment_config: AugmentConfig) -> int:
    """The number of batches that `train_batches` yields."""
    return _epoch_images(split, augment_config) // batch_size


def train_batches(
    split: Split,
    batch_size: int,
    augment_config: AugmentConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    *,
    classes: int | None = None,
    taught: SoftLabels | None = None,
    workers: int = 0,
    captured: Captured | None = None,
) -> Iterator[Batch]:
    """Yield the batches of one epoch, in an order drawn from the generator. The last, incomplete batch is dropped.

    Args:
        split: images [n, height, width] uint8, or float32 on the same scale, and their labels.
        batch_size: images per batch, 1..n; up to 2n with `plain_and_augmented`.
        augment_config: the variations, drawn from the same generator.
        generator: a CPU generator; the same state gives the same batches with any number of `workers`.
        device: of the batches; images are copied to it as they are stored, and augmented there.
        classes: number of classes; mixup, cutmix and `taught` need it unless the split has soft labels.
        taught: predictions of other nets for each face, [n, classes] float32; they become the second half of the
            labels.
        workers: number of processes for the albumentations engine; below 2 none. The batched engine needs none.
        captured: captures the augmentation of a batch as a graph, for all epochs. It is not used if the images stay on
            the CPU, if batches differ in shape, or for albumentations.

    Returns:
        An iterator over (images [batch_size, 1, height, width] float32, labels). The labels are [batch_size] int64. If
        the split has soft labels or images are mixed, they are shares of classes, [batch_size, classes] float32; with
        `taught` [batch_size, 2 * classes].

    Raises:
        DataError: before the first batch: batch_size does not fit the split, or albumentations refuses the pipeline.
    """
    images = _epoch_images(split, augment_config)
    if not 1 <= batch_size <= images:
        raise DataError(
            f"batch_size {batch_size:,} does not fit the {split.name} split: choose 1 to {images:,} (all its images)"
        )
    if augment_config.mixes and split.soft_labels is None and classes is None:
        raise DataError(f"mixup and cutmix need the number of classes, or soft labels of the {split.name} split")
    if augment_config.engine == "albumentations":
        from fer_data.augmentation.albumentations_engine import check_pipeline

        height, width = split.images.shape[1:]
        check_pipeline(augment_config, height, width)
    return _batches(
        split, batch_size, augment_config, generator, torch.device(device), classes, taught, workers, captured
    )


def _epoch_images(split: Split, config: AugmentConfig) -> int:
    return len(split) * (2 if config.plain_and_augmented else 1)


def _batches(
    split: Split,
    batch_size: int,
    config: AugmentConfig,
    generator: torch.Generator,
    device: torch.device,
    classes: int | None,
    taught: SoftLabels | None,
    workers: int,
    captured: Captured | None,
) -> Iterator[Batch]:
    seeds, epoch = _draw_epoch(split, batch_size, config, generator)
    outside = _by_albumentations(split, epoch, seeds, config, workers)
    drawn = [_labels(split, config, classes, taught), *(part for batch in epoch for part in batch)]
    labels, *drawn = copy_together(drawn, device) if device.type != "cpu" else drawn
    images = _images(split, device)
    parts = len(_Drawn._fields)

    def varied(places: Tensor, rows: Tensor, y: Tensor, *mixing: Tensor) -> Batch:
        x = vary(images(places), config, rows)
        return mix_drawn(x, y, Mixing(*mixing)) if config.mixes and len(y) else (x, y)

    if split.images.nbytes > _RESIDENT_BYTES or config.plain_and_augmented:
        captured = None
    for first in range(0, len(drawn), parts):
        batch = _Drawn(*drawn[first : first + parts])
        y = labels[batch.varied]
        if outside is not None:
            x = torch.from_numpy(next(outside)).to(device).unsqueeze(1).float()
            if config.mixes and len(y):
                x, y = mix_drawn(x, y, Mixing(batch.partner, batch.mixing))
        elif captured is not None:
            x, y = captured(varied, batch.varied, batch.rows, y, batch.partner, batch.mixing)
        else:
            x, y = varied(batch.varied, batch.rows, y, batch.partner, batch.mixing)
        if len(batch.plain):
            x = torch.cat((images(batch.plain).unsqueeze(1).float(), x))
            y = torch.cat((labels[batch.plain], y))
        yield x, y


def _draw_epoch(
    split: Split, batch_size: int, config: AugmentConfig, generator: torch.Generator
) -> tuple[list[int], list[_Drawn]]:
    """Draw all random numbers of an epoch on the CPU: a seed per batch for albumentations, and each batch."""
    images, n = _epoch_images(split, config), len(split)
    order = torch.randperm(images, generator=generator)
    chosen = [order[start : start + batch_size] for start in range(0, images - batch_size + 1, batch_size)]
    outside = config.engine == "albumentations"
    seeds: list[int] = []
    if outside:
        seeds = torch.randint(2**63 - 1, (len(chosen),), generator=generator).tolist()
    epoch = []
    for places in chosen:
        plain, varied = places[:0], places
        if config.plain_and_augmented:
            plain, varied = places[places < n], places[places >= n] - n
        rows = torch.empty(0) if outside else draw_rows(len(varied), config, generator)
        mixing = Mixing(places[:0], torch.empty(0))
        if config.mixes and len(varied):
            mixing = draw_mixing(len(varied), config, generator)
        epoch.append(_Drawn(plain, varied, rows, *mixing))
    return seeds, epoch


def _by_albumentations(
    split: Split, epoch: Sequence[_Drawn], seeds: list[int], config: AugmentConfig, workers: int
) -> Iterator[NDArray[Any]] | None:
    """The augmented images of each batch; None if they are augmented on the device."""
    if config.engine != "albumentations":
        return None
    from fer_data.augmentation.albumentations_engine import augmented

    return augmented(split.images, [batch.varied.numpy() for batch in epoch], seeds, config, workers)


def _images(split: Split, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function that maps indices [k] on the device to the images [k, height, width] there.

    A GPU keeps a copy of the split as long as the split is in use. A CPU reads the memory map.
    """
    if device.type == "cpu" or split.images.nbytes > _RESIDENT_BYTES:
        return lambda chosen: torch.from_numpy(split.images[chosen.cpu().numpy()]).to(device)
    copies = _resident.setdefault(split, {})
    if device not in copies:
        copies[device] = torch.tensor(split.images, device=device)
    return copies[device].__getitem__


def _labels(split: Split, config: AugmentConfig, classes: int | None, taught: SoftLabels | None) -> Tensor:
    """The labels of a split: [n] int64, or shares [n, classes] float32 if images have soft labels or are mixed.

    `taught` is appended as a second half of the shares.
    """
    labels = torch.tensor(split.labels.astype(np.int64) if split.soft_labels is None else split.soft_labels)
    if labels.ndim == 1 and (config.mixes or taught is not None):
        labels = F.one_hot(labels, classes or -1).float()
    return labels if taught is None else torch.cat((labels, torch.from_numpy(taught)), 1)
