import numpy as np
import pytest

from fer_data.images import resizing
from fer_data.images.resizing import all_resized, resized, room, rows_of


def test_area_is_the_mean_of_blocks():
    image = np.array([[0, 10, 100, 100], [20, 30, 100, 200]] * 2, np.uint8)
    assert resized(image, 2, "area").tolist() == [[15, 125], [15, 125]]


@pytest.mark.parametrize("method", ["area", "bilinear", "bicubic", "lanczos"])
def test_a_flat_image_stays_flat(method):
    assert np.all(resized(np.full((48, 31), 77, np.uint8), 20, method) == 77)


def test_the_methods_differ():
    image = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    results = {resized(image, 16, method).tobytes() for method in ("area", "bilinear", "bicubic", "lanczos")}
    assert len(results) == 4


def test_an_image_of_that_size_stays_itself():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    assert all_resized(images, 8, "lanczos") is images


def test_large_arrays_are_files_without_a_name(monkeypatch, cache):
    monkeypatch.setattr(resizing, "_MAX_BYTES_IN_MEMORY", 1000)
    assert not isinstance(room(10, 10, 10), np.memmap)
    large = room(2000, 8, 8, np.float32)
    assert isinstance(large, np.memmap)
    assert (large.shape, large.dtype) == ((2000, 8, 8), np.float32)
    large[...] = np.arange(2000)[:, None, None]
    assert rows_of(large, np.array([1999, 3]))[:, 7, 7].tolist() == [1999, 3]
    assert list(cache.iterdir()) == []
