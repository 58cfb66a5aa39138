"""Shuffled, augmented train batches, taken whole from the memory map."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fer_data.augment import augment
from fer_data.augment_config import AugmentConfig
from fer_data.faces import DataError, Split

Batch = tuple[Tensor, Tensor]


def train_batches(
    split: Split,
    batch_size: int,
    augment_config: AugmentConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Go once through a split in an order drawn from the generator; the last, incomplete batch is dropped.

    Args:
        split: images [n, height, width] uint8 and their labels.
        batch_size: images a batch, 1..n.
        augment_config: how the images are varied; drawn from the same generator.
        generator: a CPU generator; the same state gives the same batches.
        device: where the batches are wanted; images travel there as uint8 and are augmented there.

    Returns:
        An iterator over (images [batch_size, 1, height, width] float32 0..255, labels [batch_size] int64).

    Raises:
        DataError: at once, where batch_size does not fit the split.
    """
    if not 1 <= batch_size <= len(split):
        raise DataError(
            f"batch_size {batch_size:,} does not fit the {split.name} split: "
            f"choose 1 to {len(split):,} (all its images)"
        )
    return _batches(split, batch_size, augment_config, generator, torch.device(device))


def _batches(
    split: Split,
    batch_size: int,
    augment_config: AugmentConfig,
    generator: torch.Generator,
    device: torch.device,
) -> Iterator[Batch]:
    order = torch.randperm(len(split), generator=generator).numpy()
    for start in range(0, len(split) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        images = torch.from_numpy(split.images[chosen]).to(device)
        labels = torch.from_numpy(split.labels[chosen].astype(np.int64)).to(device)
        yield augment(images, augment_config, generator), labels
