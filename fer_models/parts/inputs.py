"""The module before a net's first layer, so that every net takes the same faces and a weights file is complete.

Legend: n images, c channels, h and w height and width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_models.configs.net_config import Normalisation

# Mean and deviation per RGB channel of ImageNet's pixels in 0..1, as torchvision's weights expect.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_DLIB_MEAN = (122.782, 117.001, 104.298)

_MIN_DEVIATION = 1.0  # grey levels; a blank face has deviation 0, an almost blank one only noise


class FaceInput(nn.Module):
    """Resize grey faces, normalise them and repeat them to the net's number of channels.

    `mean_image` is subtracted with `normalisation="mean_image"`, whose result `scale` multiplies. With one channel
    `imagenet` takes the average mean and deviation of the three.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        normalisation: Normalisation,
        mean_image: npt.NDArray[np.float32],
        *,
        size: int,
        channels: int = 1,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.size = size
        self.channels = channels
        self.per_image = normalisation == "standardise"
        shift, factor = _shift_and_scale(normalisation, mean_image, size, scale)
        if channels == 1 and normalisation == "imagenet":
            shift, factor = shift.mean(1, keepdim=True), 1 / (1 / factor).mean(1, keepdim=True)
        self.register_buffer("shift", shift)
        self.register_buffer("scale", factor)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] float 0..255 -> [n, channels, size, size]."""
        if x.shape[-2:] != (self.size, self.size):
            x = resized(x, self.size)
        if self.per_image:
            deviation, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
            x = (x - mean) / deviation.clamp_min(_MIN_DEVIATION)
        else:
            x = (x - self.shift) * self.scale
        return x.expand(-1, self.channels, -1, -1)


def resized(x: Tensor, size: int) -> Tensor:
    """[n, c, h, w] -> [n, c, size, size], bilinear, with antialiasing when it shrinks.

    Keras's image generators, and so the R/Keras report, use nearest neighbours by default.
    """
    return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)


def _shift_and_scale(
    normalisation: Normalisation, mean_image: npt.NDArray[np.float32], size: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The two buffers, each broadcastable to [n, c, h, w]."""
    if normalisation == "mean_image":
        mean = torch.tensor(mean_image, dtype=torch.float32)[None, None]
        return resized(mean, size) if mean.shape[-1] != size else mean, torch.tensor(scale)
    if normalisation == "imagenet":
        mean, deviation = (255 * torch.tensor(numbers).view(1, 3, 1, 1) for numbers in _IMAGENET)
        return mean, 1 / deviation
    if normalisation == "dlib":
        return torch.tensor(_DLIB_MEAN).view(1, 3, 1, 1), torch.tensor(1 / 256)
    shift, factor = {
        "raw": (0.0, 1.0),
        "standardise": (0.0, 1.0),
        "caffe": (0.0, 1 / 256),
        "unit": (0.0, 1 / 255),
        "half": (127.5, 1 / 127.5),
        "centred": (128.0, 1 / 256),
        "lite": (127.0, 1 / 128),
    }[normalisation]
    return torch.tensor(shift), torch.tensor(factor)
