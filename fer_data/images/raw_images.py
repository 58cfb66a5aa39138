"""Converts images from a camera or another program to the form on which a net was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_data.faces import DataError, GreyLevels
from fer_data.images.resizing import resized
from fer_data.options import ResizeMethod


def grey_faces(images: NDArray[Any], shape: tuple[int, int], method: ResizeMethod) -> GreyLevels:
    """Convert grey [n, height, width] or RGB [n, height, width, 3] to grey [n, *shape]. Resizes only to a square shape.

    Colours become grey by ITU-R BT.601, as in `decode_image`. Integers of any type are accepted, because JSON has no
    uint8.

    Raises:
        DataError: images of another shape, or values that are not integers in 0..255.
    """
    from PIL import Image

    images = np.asarray(images)
    _check_shape(images.shape, shape)
    levels = _levels(images)
    result = np.empty((len(levels), *shape), np.uint8)
    for place, image in zip(result, levels, strict=True):
        grey = np.asarray(Image.fromarray(image).convert("L")) if image.ndim == 3 else image
        place[...] = grey if grey.shape == shape else resized(grey, shape[0], method)
    return result


def _check_shape(found: tuple[int, ...], wanted: tuple[int, int]) -> None:
    if not (len(found) == 3 or (len(found) == 4 and found[3] == 3)) or 0 in found[1:]:
        raise DataError(f"images of shape {found}: expected grey [n, height, width] or RGB [n, height, width, 3]")
    if wanted[0] != wanted[1] and found[1:3] != wanted:
        raise DataError(f"images of shape {found}: the faces trained on are no squares; make these {wanted} as well")


def _levels(images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return images
    try:
        levels = images.astype(np.uint8)
    except (TypeError, ValueError) as error:
        raise DataError(f"images of {images.dtype}: expected whole numbers 0..255 ({error})") from error
    if not np.array_equal(levels, images):
        raise DataError(f"images of {images.dtype} with numbers that are not whole or not in 0..255: expected uint8")
    return levels
