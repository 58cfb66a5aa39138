"""Synthetic faces to try a net on, one per expression; they show no person."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from fer_data import EXPRESSIONS

_SEED = 7
_SIDE = 240


@cache
def example_png(number: int) -> bytes:
    """A synthetic face of the expression with this number, modulo the number of expressions."""
    from fer_data.sources.synthetic import draw_faces

    labels = np.arange(len(EXPRESSIONS), dtype=np.uint8)
    face = draw_faces(labels, np.random.default_rng(_SEED))[number % len(EXPRESSIONS)]
    file = io.BytesIO()
    Image.fromarray(face).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
