"""Resizes images, and allocates arrays that are too large for memory on disk."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fer_common.files import cache_path
from fer_data.cache.stratify import Indices
from fer_data.faces import GreyLevels, Images
from fer_data.options import ResizeMethod

_MAX_BYTES_IN_MEMORY = 256 * 2**20
_ROWS_AT_A_TIME = 1024


def room(n: int, height: int, width: int, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    """An uninitialised [n, height, width]: in memory, or in a file in the cache folder if it is large.

    The file has no name and is deleted with the array. The system may evict its pages at any time.

    Raises:
        OSError: the disk has not enough space.
    """
    size = n * height * width * np.dtype(dtype).itemsize
    if size <= _MAX_BYTES_IN_MEMORY:
        return np.empty((n, height, width), dtype)
    with tempfile.TemporaryFile(dir=cache_path()) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # on a full disk this raises; writing a mapped page would crash
        return np.memmap(file, dtype, "r+", shape=(n, height, width))


def resized(image: GreyLevels, side: int, method: ResizeMethod) -> GreyLevels:
    """Resize an image [height, width] to [side, side] with Pillow's filter. An image of that size stays as it is."""
    if image.shape == (side, side):
        return image
    from PIL import Image

    filters = {
        "area": Image.Resampling.BOX,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
    return np.asarray(Image.fromarray(image).resize((side, side), filters[method]))


def all_resized(images: Images, side: int, method: ResizeMethod) -> Images:
    """Resize uint8 [n, height, width] to [n, side, side] with Pillow's filter."""
    if images.shape[1:] == (side, side):
        return images
    result = room(len(images), side, side)
    for number, image in enumerate(images):
        result[number] = resized(image, side, method)
    return result


def rows_of(images: Images, rows: Indices) -> Images:
    """A copy of these rows, made block by block, so that a large array is never in memory as a whole."""
    height, width = images.shape[1:]
    result = room(len(rows), height, width, images.dtype)
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        block = slice(start, start + _ROWS_AT_A_TIME)
        result[block] = images[rows[block]]
    return result
