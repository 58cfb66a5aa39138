"""Draws a Grad-CAM: the face as the net receives it, tinted where the prediction comes from."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 192
_TINT = np.array([255, 120, 0])
_STRENGTH = 0.65


def looked_png(face: NDArray[np.uint8], looked: NDArray[np.float32]) -> bytes:
    """A face [side, side] and its Grad-CAM [side, side] in 0..1 as one picture."""
    grey, share = (_enlarged(image) for image in (face, np.rint(255 * looked).astype(np.uint8)))
    mixed = _STRENGTH * share[..., None] / 255
    file = io.BytesIO()
    Image.fromarray(((1 - mixed) * grey[..., None] + mixed * _TINT).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
