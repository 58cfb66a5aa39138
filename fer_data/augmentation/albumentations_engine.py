"""Augmentation with albumentations, image by image: a user's own pipeline, or the variations of an AugmentConfig.

Each batch has its own seed, so the result does not depend on which process computes it.
"""

from __future__ import annotations

import json
import os
import random
import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_common.errors import nearest
from fer_data.augmentation.augment_config import ERASED_AREA, ERASED_ASPECT, LEAST_BLUR_SIGMA, AugmentConfig
from fer_data.faces import DataError, Images

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import looks for a newer version online


def check_pipeline(config: AugmentConfig, height: int, width: int) -> None:
    """Build the pipeline and apply it to one grey image.

    Raises:
        DataError: albumentations refuses the pipeline, or the result is not a grey image of that size.
    """
    augment_images(np.full((1, height, width), 128, np.uint8), config, seed=0)


def augmented(
    images: Images, batches: Sequence[NDArray[np.intp]], seeds: Sequence[int], config: AugmentConfig, workers: int
) -> Iterator[Images]:
    """Yield the augmented images [k, height, width] of each batch, in order.

    Args:
        images: [n, height, width] of a split.
        batches: the indices of each batch.
        seeds: one per batch; everything random in the batch depends on it.
        config: the variations.
        workers: number of processes that compute batches in advance and are kept between calls; below 2, this process
            computes them.
    """
    settings = config.model_dump_json()
    if workers < 2:
        for chosen, seed in zip(batches, seeds, strict=True):
            yield _augment_images(images[chosen], settings, seed)
        return
    from joblib import Parallel, delayed

    tasks = (
        delayed(_augment_images)(images[chosen], settings, seed) for chosen, seed in zip(batches, seeds, strict=True)
    )
    results = Parallel(n_jobs=workers, batch_size=1, max_nbytes=None, return_as="generator")(tasks)
    try:
        # If the caller stops early, `yield from` would close the results before the block below.
        for images_of_a_batch in results:  # noqa: UP028
            yield images_of_a_batch
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of batches that nobody took
            results.close()


def augment_images(images: Images, config: AugmentConfig, seed: int) -> Images:
    """Augment images [n, height, width], uint8 or float32 0..255, one by one; the result has the same type and shape.

    Raises:
        DataError: albumentations refuses the pipeline, or the images are outside 0..255.
    """
    return _augment_images(images, config.model_dump_json(), seed)


def _augment_images(images: Images, settings: str, seed: int) -> Images:
    _, height, width = images.shape
    grey_levels = images.dtype == np.uint8
    if not grey_levels and images.size and not (images.min() >= 0 and images.max() <= 255):
        raise DataError(
            f"albumentations cuts grey levels off at 0 and 255, these images have {images.min():.0f} to "
            f"{images.max():.0f}: use engine 'batched', or a preprocessing that stays on the scale"
        )
    pipeline = _kept.built(settings, height, width)
    # set_random_seed would give all transforms generators of the same seed, so their choices would be equal.
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    result = np.empty_like(images)
    for number, image in enumerate(images if grey_levels else images / np.float32(255)):
        result[number] = _varied(pipeline, image)
    return result if grey_levels else result * np.float32(255)


def _varied(pipeline: Any, image: Images) -> Images:
    height, width = image.shape
    try:
        varied = pipeline(image=image[:, :, None])["image"]
    except Exception as error:  # a transform may raise anything, and the pipeline is the user's
        raise DataError(f"albumentations refuses a grey image of {height}x{width}: {_reason(error)}") from error
    if not isinstance(varied, np.ndarray) or varied.dtype != image.dtype:
        kind = f"{type(varied).__module__}.{type(varied).__name__}"
        raise DataError(
            f"the pipeline returns {varied.dtype if isinstance(varied, np.ndarray) else kind}, expected {image.dtype} "
            "as it was given: leave out Normalize and ToTensorV2, the nets do that"
        )
    if varied.size != image.size or varied.shape[:2] != image.shape:
        raise DataError(f"the pipeline returns an image {varied.shape}, expected {height}x{width} grey as it was given")
    return varied.reshape(image.shape)


_building = threading.Lock()
"""Held while a pipeline is built, because warning filters apply to the whole process."""


def _build(settings: str, height: int, width: int) -> Any:
    config = AugmentConfig.model_validate_json(settings)
    with _building:
        if config.pipeline is not None:
            return _from_dict(config.pipeline)
        return _from_config(config, height, width)


class _Kept(threading.local):
    """The pipelines that a thread has built. Each has its own random state, so threads do not share them."""

    def __init__(self) -> None:
        self.built = lru_cache(maxsize=4)(_build)


_kept = _Kept()


def _from_dict(pipeline: dict[str, Any]) -> Any:
    import albumentations as A

    _one_opencv_thread()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Argument")  # otherwise a misspelt argument is ignored
            built = A.from_dict(json.loads(json.dumps(pipeline)))
            return built if isinstance(built, A.Compose) else A.Compose([built])
    except Exception as error:  # a transform's constructor may raise anything
        raise DataError(f"albumentations refuses the pipeline: {_reason(error)}{_similar_transform(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _similar_transform(error: Exception) -> str:
    """A hint with the most similar transform's name if the error is an unknown name, else an empty text."""
    from albumentations.core.serialization import SERIALIZABLE_REGISTRY

    name = str(error.args[0]) if isinstance(error, KeyError) and error.args else ""
    return nearest(name, SERIALIZABLE_REGISTRY)


def _from_config(config: AugmentConfig, height: int, width: int) -> Any:
    import albumentations as A
    import cv2

    _one_opencv_thread()
    transforms: list[Any] = []
    if config.flip:
        transforms.append(A.HorizontalFlip(p=config.flip))
    if config.crop_pad:
        framed = height + 2 * config.crop_pad, width + 2 * config.crop_pad
        transforms += [A.PadIfNeeded(*framed, border_mode=cv2.BORDER_CONSTANT, p=1), A.RandomCrop(height, width, p=1)]
    if config.moves:
        transforms.append(
            A.Affine(
                rotate=(-config.rotate_deg, config.rotate_deg),
                scale=(1 - config.scale, 1 + config.scale),
                keep_ratio=True,
                translate_percent=(-config.shift, config.shift),
                shear={"x": (-config.shear_deg, config.shear_deg), "y": (0.0, 0.0)},
                border_mode=cv2.BORDER_REPLICATE,
                p=1,
            )
        )
    if config.blur:
        sigmas = (LEAST_BLUR_SIGMA, config.blur_sigma)
        transforms.append(A.GaussianBlur(blur_limit=0, sigma_limit=sigmas, p=config.blur))
    if config.brightness or config.contrast:
        transforms.append(A.RandomBrightnessContrast(config.brightness, config.contrast, p=1))
    if config.noise:
        deviations = (config.noise_min / 255, config.noise / 255)
        transforms.append(A.GaussNoise(std_range=deviations, p=config.noise_probability))
    if config.cutout:
        sides = (config.cutout_size, config.cutout_size)
        holes = (config.cutout, config.cutout)
        transforms.append(A.CoarseDropout(num_holes_range=holes, hole_height_range=sides, hole_width_range=sides, p=1))
    if config.erase:
        transforms.append(A.Erasing(scale=ERASED_AREA, ratio=ERASED_ASPECT, fill="random", p=config.erase))
    return A.Compose(transforms)


def _one_opencv_thread() -> None:
    """Let OpenCV use one thread: faces are small, and several workers run at once."""
    import cv2

    cv2.setNumThreads(0)
