from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fer_models.training.fit import Batches


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def mean_image() -> npt.NDArray[np.float32]:
    return np.full((48, 48), 128, dtype=np.float32)


@pytest.fixture
def faces() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """28 noisy pictures of 7 classes: class k has a bright band in rows 6k to 6k+5."""
    rng = np.random.default_rng(3)
    labels = np.arange(28, dtype=np.uint8) % 7
    images = rng.integers(0, 120, (28, 48, 48), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[6 * label : 6 * label + 6] += 130
    return images, labels


@pytest.fixture
def batches_of() -> Callable[..., Batches]:
    """Shuffled batches from memory, as `fit` takes them."""

    def make(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], size: int) -> Batches:
        x, y = torch.tensor(images).float().unsqueeze(1), torch.tensor(labels).long()

        def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
            order = torch.randperm(len(x), generator=generator)
            for start in range(0, len(x) - size + 1, size):
                chosen = order[start : start + size]
                yield x[chosen], y[chosen]

        return batches

    return make
