"""The names of the preprocessings, in a file of their own, so that a configuration can be read without OpenCV."""

from __future__ import annotations

from typing import Literal, get_args

from fer_common.errors import nearest
from fer_data.faces import DataError

Preprocessing = Literal[
    "none",
    "standardise",
    "mean_image",
    "scale",
    "clahe",
    "equalise_local",
    "equalise_global",
    "normalise",
    "prewitt",
    "scharr",
    "sobel",
    "roberts",
    "yen",
    "isodata",
    "mean_threshold",
    "standardise_int64",
    "clahe_int64",
    "equalise_local_int64",
    "normalise_int64",
    "prewitt_int64",
    "scharr_int64",
    "sobel_int64",
    "roberts_int64",
    "yen_int64",
    "isodata_int64",
    "mean_threshold_int64",
]
"""The choices of `fer_data.augmentation.preprocess`; those with _int64 repeat the integer arrays of the VGG report."""

INT64_SUFFIX = "_int64"

PREPROCESSINGS: tuple[Preprocessing, ...] = get_args(Preprocessing)


def known_preprocessing(name: str) -> Preprocessing:
    """Check a name and return it.

    Raises:
        DataError: the preprocessing is unknown.
    """
    for known in PREPROCESSINGS:
        if name == known:
            return known
    raise DataError(
        f"unknown preprocessing '{name}'{nearest(name, PREPROCESSINGS)}; known are {', '.join(PREPROCESSINGS)}"
    )
