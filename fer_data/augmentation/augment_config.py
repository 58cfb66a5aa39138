"""The configuration of the augmentation. It is not in augment.py, so that it can be read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fer_common.frozen import Finite
from fer_data.faces import DataError

# Zhong et al. 2017 (arXiv:1708.04896) erase 2-40 % of a photograph. On a face 20 % already hide a whole mouth.
ERASED_AREA = (0.02, 0.20)
ERASED_ASPECT = (0.3, 1 / 0.3)
LEAST_BLUR_SIGMA = 0.1


class AugmentConfig(Finite):
    """Random variations of train images, drawn per image and epoch. All are off by default.

    They are applied in the order of the fields; mixup and cutmix apply to whole batches. Grey levels are on the scale
    0..255. If the images are uint8, the results of brightness, contrast and noise are clipped to this scale.
    """

    flip: float = Field(default=0.0, ge=0, le=1, description="probability of a left-right mirror image")
    crop_pad: int = Field(default=0, ge=0, le=64, description="random crop from so wide a black frame, pixels")
    rotate_deg: float = Field(default=0.0, ge=0, le=180, description="largest rotation either way, degrees")
    shift: float = Field(default=0.0, ge=0, le=0.5, description="largest shift, fraction of the side")
    scale: float = Field(default=0.0, ge=0, le=0.5, description="largest change of size, fraction")
    shear_deg: float = Field(default=0.0, ge=0, le=60, description="largest slant of the vertical, degrees")
    blur: float = Field(default=0.0, ge=0, le=1, description="probability of a Gaussian blur")
    blur_sigma: float = Field(
        default=1.0, ge=LEAST_BLUR_SIGMA, le=10, description="its largest standard deviation, pixels"
    )
    brightness: float = Field(default=0.0, ge=0, le=1, description="largest grey level added, fraction of 255")
    contrast: float = Field(default=0.0, ge=0, le=1, description="largest change of the grey levels' factor 1")
    noise: float = Field(default=0.0, ge=0, le=128, description="largest deviation of Gaussian noise, grey levels")
    noise_min: float = Field(default=0.0, ge=0, le=128, description="smallest deviation of it")
    noise_probability: float = Field(default=1.0, ge=0, le=1, description="probability of the noise")
    cutout: int = Field(default=0, ge=0, le=16, description="black squares in every image, all inside it")
    cutout_size: int = Field(default=2, ge=1, le=256, description="their side, pixels")
    erase: float = Field(default=0.0, ge=0, le=1, description="probability of a random rectangle of noise")
    mixup: float = Field(default=0.0, ge=0, le=32, description="alpha of the Beta distribution of two images' shares")
    cutmix: float = Field(default=0.0, ge=0, le=32, description="alpha of the Beta distribution of a pasted area")

    plain_and_augmented: bool = Field(default=False, description="an epoch has each image twice, once as it is")
    engine: Literal["batched", "batched_int64", "albumentations"] = Field(
        default="batched", description="what computes the variations; int64 repeats a fault: noisy images become 0 or 1"
    )
    pipeline: dict[str, Any] | None = Field(
        default=None, description="a serialised albumentations pipeline in place of all variations of single images"
    )

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        faults = []
        if self.noise_min > self.noise:
            faults.append(f"noise_min {self.noise_min:g} is larger than noise {self.noise:g}: give noise too")
        if self.pipeline is not None and self.engine != "albumentations":
            faults.append(f"pipeline needs engine 'albumentations', got '{self.engine}'")
        if self.pipeline is not None and self.varies_images:
            faults.append("pipeline takes the place of flip to erase: put those into the pipeline")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def varies_images(self) -> bool:
        """Whether a variation of single images is on, apart from the pipeline."""
        switches = ("flip", "crop_pad", "blur", "brightness", "contrast", "noise", "cutout", "erase")
        return self.moves or any(getattr(self, name) for name in switches)

    @property
    def moves(self) -> bool:
        """Whether one of the affine variations is on."""
        return bool(self.rotate_deg or self.shift or self.scale or self.shear_deg)

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed, so that labels become shares of classes."""
        return bool(self.mixup or self.cutmix)


DL_COURSE = AugmentConfig(flip=0.5, cutout=2, cutout_size=2, noise=50**0.5, noise_min=10**0.5, noise_probability=0.5)
"""The augmentation of the DL-course report.

Mirror images, two holes of 2x2, and noise of variance 10 to 50 in half of the images. The report draws the variance
uniformly between these bounds; here the standard deviation is drawn uniformly.
"""

DL_COURSE_AS_IT_RAN = DL_COURSE.model_copy(update={"engine": "batched_int64"})
"""The same with a fault of the report's program.

Its images were int64, and albumentations of 2021 clipped those to 0..1 when it added noise. About half of the augmented
images were therefore blank.
"""


def read_pipeline(path: Path) -> dict[str, Any]:
    """Read a pipeline that `albumentations.save` wrote as YAML or JSON, for `AugmentConfig.pipeline`.

    Raises:
        DataError: the file cannot be read or is not such a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("transform"), dict):
        raise DataError(f"{path}: expected a mapping with the key transform; write it with albumentations.save")
    return content
