import pytest
import torch
from small_faces import split_of

from fer_data import AugmentConfig, DataError
from fer_data.batches import train_batches

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


@pytest.mark.parametrize("batch_size", [-1, 0, 101])
def test_a_batch_size_that_does_not_fit_is_refused_at_once(batch_size):
    with pytest.raises(DataError, match=rf"batch_size {batch_size} .*train split: choose 1 to 100"):
        train_batches(SPLIT, batch_size, AugmentConfig(), torch.Generator())
