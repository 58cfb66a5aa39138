"""Preprocessing of grey faces, on the scale of grey levels 0..255: every method that the VGG report compares.

Each image [height, width] uint8 becomes float32 of the same shape:

    CLAHE, normalise, edges   their outputs in 0..1, times 255
    thresholds                0 or 255
    equalised                 the grey levels as they are
    standardise               127.5 + 64 z, z = (x - mean) / standard deviation of the image; 0 for a constant image
    scale                     64 x / standard deviation, without centring; a constant image becomes black
    mean_image                127.5 + x - the mean image of train

All outputs can be used as grey levels, although standardised and scaled values may be outside 0..255.

The `_int64` ones repeat a fault of the report's program, which stored the outputs, before scaling to grey levels, in an
int64 array: fractions are cut off, and values in 0..1 become 0 unless they are exactly 1. For a constant image z is 0 /
0, which NumPy on x86 stores as -2^63. The eleven constant images in FER2013's train split slow training down: with one
of them among 8,000 faces vgg_small had 31.8 % on 1,000 faces of PublicTest after five epochs, and 37.4 % after that
image was replaced by zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_data.augmentation.preprocess_names import INT64_SUFFIX, known_preprocessing
from fer_data.faces import DataError, GreyLevels, Images, MeanImage

Output = NDArray[Any]

_INT64_OF_NAN = -(2.0**63)


@dataclass(frozen=True)
class _Operator:
    """Maps an image to the operator's output in its own units. The grey levels are offset + gain * output.

    NaN becomes `offset`.
    """

    output: Callable[[GreyLevels], Output]
    gain: float
    offset: float = 0.0


def preprocess(images: Images, name: str, mean_image: MeanImage | None = None) -> NDArray[np.float32]:
    """Preprocess images [n, height, width] uint8 one by one: [n, height, width] float32.

    Args:
        images: grey levels.
        name: one of PREPROCESSINGS.
        mean_image: [height, width], which `mean_image` subtracts.

    Raises:
        DataError: unknown preprocessing, images that are not uint8, or a missing mean image.
    """
    known = known_preprocessing(name)
    if images.dtype != np.uint8:
        raise DataError(f"preprocessing '{name}' takes uint8 images, got {images.dtype}: they are preprocessed already")
    operator = _operator(known.removesuffix(INT64_SUFFIX), mean_image)
    result = np.empty(images.shape, np.float32)
    for place, image in zip(result, images.copy(), strict=True):  # scikit-image's rank filters refuse a read-only image
        output = operator.output(image)
        if known.endswith(INT64_SUFFIX):
            place[...] = np.where(np.isnan(output), _INT64_OF_NAN, np.trunc(output))
        else:
            place[...] = operator.offset + operator.gain * np.nan_to_num(output)
    return result


def _operator(name: str, mean_image: MeanImage | None) -> _Operator:
    if name == "mean_image":
        if mean_image is None:
            raise DataError("preprocessing 'mean_image' needs the mean image of train")
        return _Operator(lambda image: image - mean_image, 1, 127.5)
    return _operators()[name]


@lru_cache(maxsize=1)
def _operators() -> dict[str, _Operator]:
    """All operators except `mean_image`. They are the functions that the VGG report names."""
    import cv2
    from skimage import exposure, filters
    from skimage.morphology import disk

    cv2.setNumThreads(0)  # an image is too small for several threads
    footprint = disk(30)  # type: ignore[no-untyped-call]
    return {
        "none": _Operator(np.asarray, 1),
        "standardise": _Operator(_standardised, 64, 127.5),
        "scale": _Operator(_scaled, 64),
        "clahe": _Operator(partial(exposure.equalize_adapthist, clip_limit=0.99), 255),
        "equalise_local": _Operator(partial(filters.rank.equalize, footprint=footprint), 1),
        "equalise_global": _Operator(cv2.equalizeHist, 1),
        "normalise": _Operator(_normalised, 255),
        "prewitt": _Operator(filters.prewitt, 255),
        "scharr": _Operator(filters.scharr, 255),
        "sobel": _Operator(filters.sobel, 255),
        "roberts": _Operator(filters.roberts, 255),
        "yen": _Operator(partial(_above, filters.threshold_yen), 255),
        "isodata": _Operator(partial(_above, filters.threshold_isodata), 255),
        "mean_threshold": _Operator(partial(_above, filters.threshold_mean), 255),
    }


def _standardised(image: GreyLevels) -> Output:
    deviation = image.std()
    return (image - image.mean()) / deviation if deviation > 0 else np.full(image.shape, np.nan)


def _scaled(image: GreyLevels) -> Output:
    deviation = image.std()
    return image / deviation if deviation > 0 else np.zeros(image.shape)


def _normalised(image: GreyLevels) -> Output:
    """As `cv2.normalize` to 0..1 in float, but with exact bounds.

    Bounds matter because the cut to integers makes every value but an exact 1 zero. OpenCV's maximum (3.4 to 5.0) is a
    rounding error below 1 in a tenth (float64) or a fifth (float32) of FER2013's images, and the cut makes it 0. Given
    integers OpenCV rounds, and half of the pixels become 1. The report's 27.39 % agrees with cutting, not with
    rounding.
    """
    least, most = int(image.min()), int(image.max())
    return (image - np.float64(least)) / max(most - least, 1)


def _above(threshold: Callable[[GreyLevels], Any], image: GreyLevels) -> Output:
    above: Output = np.greater(image, threshold(image))
    return above
