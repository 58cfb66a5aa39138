"""Shuffled, augmented train batches, read from the memory map batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fer_data.augmentation.augment import augment
from fer_data.augmentation.augment_config import AugmentConfig
from fer_data.augmentation.mix import mix
from fer_data.faces import DataError, Split

Batch = tuple[Tensor, Tensor]
Indices = NDArray[np.intp]


class _Chosen(NamedTuple):
    """The images of one batch: those shown as they are, and those varied."""

    plain: Indices
    varied: Indices


def batches_per_epoch(split: Split, batch_size: int, augment_config: AugmentConfig) -> int:
    """Return how many batches `train_batches` gives."""
    return _epoch_images(split, augment_config) // batch_size


def train_batches(
    split: Split,
    batch_size: int,
    augment_config: AugmentConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    *,
    classes: int | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """Go once through a split in an order drawn from the generator; the last, incomplete batch is dropped.

    Args:
        split: images [n, height, width] uint8, or float32 on the same scale, and their labels.
        batch_size: images a batch, 1..n; to 2n where each image comes plain and augmented.
        augment_config: how the images are varied; drawn from the same generator.
        generator: a CPU generator; the same state gives the same batches, whatever `workers` is.
        device: of the batches; images are copied there as they are stored and are augmented there.
        classes: their number; mixup and cutmix need it unless the split has soft labels.
        workers: processes for the albumentations engine, below two none; the batched engine needs none.

    Returns:
        An iterator over (images [batch_size, 1, height, width] float32, labels). The labels are [batch_size]
        int64, or [batch_size, classes] float32 shares where the split has soft labels or images are mixed.

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
    return _batches(split, batch_size, augment_config, generator, torch.device(device), classes, workers)


def _epoch_images(split: Split, config: AugmentConfig) -> int:
    return len(split) * (2 if config.plain_and_augmented else 1)


def _batches(
    split: Split,
    batch_size: int,
    config: AugmentConfig,
    generator: torch.Generator,
    device: torch.device,
    classes: int | None,
    workers: int,
) -> Iterator[Batch]:
    batches = _shuffled(split, batch_size, config, generator)
    varied = _varied(split, [chosen.varied for chosen in batches], config, generator, device, workers)
    for chosen, images in zip(batches, varied, strict=True):
        labels = _labels(split, chosen.varied, config, classes, device)
        if config.mixes and len(labels):
            images, labels = mix(images, labels, config, generator)
        if len(chosen.plain):
            plain = torch.from_numpy(split.images[chosen.plain]).to(device).unsqueeze(1).float()
            images = torch.cat((plain, images))
            labels = torch.cat((_labels(split, chosen.plain, config, classes, device), labels))
        yield images, labels


def _shuffled(split: Split, batch_size: int, config: AugmentConfig, generator: torch.Generator) -> list[_Chosen]:
    images = _epoch_images(split, config)
    order = torch.randperm(images, generator=generator).numpy()
    batches = (order[start : start + batch_size] for start in range(0, images - batch_size + 1, batch_size))
    if not config.plain_and_augmented:
        return [_Chosen(chosen[:0], chosen) for chosen in batches]
    n = len(split)
    return [_Chosen(chosen[chosen < n], chosen[chosen >= n] - n) for chosen in batches]


def _varied(
    split: Split,
    batches: Sequence[Indices],
    config: AugmentConfig,
    generator: torch.Generator,
    device: torch.device,
    workers: int,
) -> Iterator[Tensor]:
    """Yield the varied images [k, 1, height, width] float32 of each batch."""
    if config.engine == "albumentations":
        from fer_data.augmentation.albumentations_engine import augmented

        seeds = torch.randint(2**63 - 1, (len(batches),), generator=generator).tolist()
        for images in augmented(split.images, batches, seeds, config, workers):
            yield torch.from_numpy(images).to(device).unsqueeze(1).float()
        return
    for chosen in batches:
        yield augment(torch.from_numpy(split.images[chosen]).to(device), config, generator)


def _labels(split: Split, chosen: Indices, config: AugmentConfig, classes: int | None, device: torch.device) -> Tensor:
    """Return labels [k] int64, or shares [k, classes] float32 where the split has them or images are mixed."""
    if split.soft_labels is not None:
        return torch.from_numpy(split.soft_labels[chosen]).to(device)
    labels = torch.from_numpy(split.labels[chosen].astype(np.int64)).to(device)
    return F.one_hot(labels, classes or -1).float() if config.mixes else labels
