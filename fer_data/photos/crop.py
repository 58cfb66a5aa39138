"""Crops a face from a photograph in the form of FER2013's images: square, grey, filled by the face."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fer_data.faces import GreyLevels
from fer_data.images.resizing import resized
from fer_data.options import ResizeMethod
from fer_data.photos.detector import Box
from fer_data.photos.photo import Photo

_SIDE_PER_FACE = 1.08
"""Side of the square divided by the root of the box's area: the detector's median on 400 faces of FER2013."""


def cut_out(photo: Photo, box: Box, side: int) -> GreyLevels:
    """The face in a box as grey [side, side]. Beyond the edges of the photograph its outermost pixels are repeated."""
    half = max(1.0, photo.scale * _SIDE_PER_FACE * (box.width * box.height) ** 0.5 / 2)
    across, down = photo.scale * (box.left + box.width / 2), photo.scale * (box.top + box.height / 2)
    columns = np.arange(round(across - half), round(across + half)).clip(0, photo.rgb.shape[1] - 1)
    rows = np.arange(round(down - half), round(down + half)).clip(0, photo.rgb.shape[0] - 1)
    grey = Image.fromarray(photo.rgb[np.ix_(rows, columns)]).convert("L")
    # Pillow's BOX averages when it reduces, as for training faces, but repeats pixels when it enlarges.
    how = Image.Resampling.BOX if min(grey.size) >= side else Image.Resampling.BICUBIC
    return np.asarray(grey.resize((side, side), how))


def whole(photo: Photo, side: int, method: ResizeMethod) -> GreyLevels:
    """The whole photograph as grey [side, side], resized as training faces are, which also are nothing but a face."""
    return resized(np.asarray(Image.fromarray(photo.rgb).convert("L")), side, method)
