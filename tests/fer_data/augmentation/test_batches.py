import dataclasses

import numpy as np
import pytest
import torch

from fer_data import AugmentConfig, DataError
from fer_data.augmentation.batches import batches_per_epoch, train_batches
from tests.fer_data.small_faces import split_of

SPLIT = split_of([number % 7 for number in range(100)])  # image k is filled with k, and its label is k mod 7


def epoch(
    seed: int, batch_size: int = 32, config: AugmentConfig | None = None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(train_batches(SPLIT, batch_size, config or AugmentConfig(), torch.Generator().manual_seed(seed)))


def test_shapes_and_types():
    images, labels = epoch(0)[0]
    assert (images.shape, images.dtype) == ((32, 1, 4, 4), torch.float32)
    assert (labels.shape, labels.dtype) == ((32,), torch.int64)


def test_an_epoch_shows_each_image_once_with_its_label():
    batches = epoch(0, batch_size=25)
    numbers = torch.cat([images[:, 0, 0, 0] for images, _ in batches]).long()
    labels = torch.cat([labels for _, labels in batches])
    assert sorted(numbers.tolist()) == list(range(100))
    assert torch.equal(labels, numbers % 7)
    assert numbers.tolist() != list(range(100))


def test_the_last_incomplete_batch_is_dropped():
    assert [len(labels) for _, labels in epoch(0, batch_size=32)] == [32, 32, 32]
    assert [len(labels) for _, labels in epoch(0, batch_size=100)] == [100]


def test_the_generator_decides_order_and_augmentation():
    config = AugmentConfig(erase=1)
    first, again, other = (torch.cat([images for images, _ in epoch(seed, config=config)]) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_two_epochs_of_one_generator_differ():
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.cat([labels for _, labels in train_batches(SPLIT, 25, AugmentConfig(), generator)]) for _ in range(2)
    )
    assert not torch.equal(first, second)


def test_images_are_augmented():
    plain, erased = epoch(0)[0][0], epoch(0, config=AugmentConfig(erase=1))[0][0]
    assert not torch.equal(plain, erased)


def test_an_epoch_plain_and_augmented_shows_each_image_both_ways():
    config = AugmentConfig(brightness=0.5, plain_and_augmented=True)
    floats = dataclasses.replace(SPLIT, images=SPLIT.images.astype(np.float32))  # not cut off at 0
    batches = list(train_batches(floats, 40, config, torch.Generator()))
    assert len(batches) == batches_per_epoch(floats, 40, config) == 5
    levels, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    levels = levels[:, 0, 0, 0]
    plain = levels % 1 == 0  # what is added is hardly ever a whole number
    assert sorted(levels[plain].tolist()) == list(range(100))
    assert torch.equal(labels[plain], levels[plain].long() % 7)
    assert torch.bincount(labels[~plain]).tolist() == SPLIT.counts(7)
    for images, _ in batches:
        assert 0 < (images[:, 0, 0, 0] % 1 == 0).sum() < 40


def test_a_batch_may_hold_plain_images_alone():
    everything = AugmentConfig(
        flip=0.5, rotate_deg=5, crop_pad=1, blur=0.5, contrast=0.5, noise=5, cutout=1, erase=0.5, mixup=1.0, cutmix=1.0
    )
    for config in (everything, everything.model_copy(update={"rotate_deg": 0.0})):
        doubled = config.model_copy(update={"plain_and_augmented": True})
        batches = list(train_batches(SPLIT, 1, doubled, torch.Generator(), classes=7))
        assert len(batches) == 200
        assert {tuple(images.shape) for images, _ in batches} == {(1, 1, 4, 4)}


def test_batches_of_an_epoch_are_counted_beforehand():
    assert batches_per_epoch(SPLIT, 32, AugmentConfig()) == 3
    assert batches_per_epoch(SPLIT, 150, AugmentConfig(plain_and_augmented=True)) == 1


def test_soft_labels_go_with_their_images():
    shares = np.stack([np.linspace(0, 1, 100), np.linspace(1, 0, 100)], axis=1).astype(np.float32)
    soft = dataclasses.replace(SPLIT, soft_labels=shares)
    for images, labels in train_batches(soft, 25, AugmentConfig(), torch.Generator()):
        assert labels.dtype == torch.float32
        assert torch.equal(labels, torch.from_numpy(shares)[images[:, 0, 0, 0].long()])


def test_mixed_batches_have_shares_for_labels():
    config = AugmentConfig(mixup=1.0)
    for images, labels in train_batches(SPLIT, 25, config, torch.Generator(), classes=9):
        assert (images.shape, labels.shape, labels.dtype) == ((25, 1, 4, 4), (25, 9), torch.float32)
        assert torch.allclose(labels.sum(1), torch.ones(25))
        assert ((labels > 0) & (labels < 1)).any()
    with pytest.raises(DataError, match="mixup and cutmix need the number of classes, or soft labels"):
        train_batches(SPLIT, 25, config, torch.Generator())


def test_plain_images_are_not_mixed():
    config = AugmentConfig(mixup=1.0, plain_and_augmented=True)
    batches = list(train_batches(SPLIT, 40, config, torch.Generator(), classes=7))
    certain = torch.cat([labels for _, labels in batches]).amax(1) == 1
    assert certain.sum() >= 100
    assert not certain.all()


def test_float_images_come_as_they_are():
    floats = dataclasses.replace(SPLIT, images=SPLIT.images - np.float32(50.5))
    images, _ = next(train_batches(floats, 100, AugmentConfig(), torch.Generator()))
    assert sorted(images[:, 0, 0, 0].tolist()) == [number - 50.5 for number in range(100)]


@pytest.mark.parametrize("batch_size", [-1, 0, 101])
def test_a_batch_size_that_does_not_fit_is_refused_at_once(batch_size):
    with pytest.raises(DataError, match=rf"batch_size {batch_size} .*train split: choose 1 to 100"):
        train_batches(SPLIT, batch_size, AugmentConfig(), torch.Generator())
