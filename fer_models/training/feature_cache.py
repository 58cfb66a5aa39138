"""Training on the features of a net's frozen stages, which are computed once instead of in every epoch.

Legend: n faces, c channels, h and w height and width of a face or of the map after the frozen stages, f features.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_models.configs.recipe import MemoryFormat, Precision, Recipe
from fer_models.configs.transfer_config import Transfer
from fer_models.errors import ModelError
from fer_models.parts.staged import StagedNet
from fer_models.parts.stages import frozen_count
from fer_models.training.computed import Computing, compute
from fer_models.training.evaluate import EVALUATION_BATCH, in_batches
from fer_models.training.fit import Batches, Epoch, Faces, fit
from fer_models.training.schedule import phases
from fer_models.training.state import TrainingState, place
from fer_models.training.tensor_file import tensors_sha256

_FEATURES = "features of the frozen stages"
_PROBES = 2


def fit_on_features(
    state: TrainingState,
    train: Faces,
    val: Faces,
    *,
    folder: Path,
    fingerprint: str,
    recipe: Recipe,
    transfer: Transfer,
    epochs: int,
    device: str = "cpu",
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "contiguous",
    micro_batches: int = 1,
    **more: Any,
) -> Iterator[Epoch | Computing]:
    """As `fit`, on unaugmented faces in an order by `torch.randperm`, with the same results except for rounding.

    A phase without frozen stages trains on the faces themselves, and so does one with a running average that freezes
    stages which learned before. While features are computed, the progress is yielded every few seconds.

    Args:
        state: of a `StagedNet`; it is the state after the yielded epoch.
        train: faces [n, h, w] and their labels, as `fit` takes them.
        val: faces and labels to validate on.
        folder: where the features are cached, as the net computes them (float32 or bfloat16). Features of an earlier
            run with the same weights and faces are used again, and unfinished ones are completed.
        fingerprint: of the faces of both splits.
        more: further arguments of `fit`, as are those that are not named here.

    Raises:
        ModelError: as `fit`; also if the recipe has several views, the net cannot be cut, or the features cannot be
            written.
    """
    if recipe.views != "plain":
        raise ModelError(f"views '{recipe.views}' need the faces themselves; a cache of features needs views='plain'")
    size, batch_size = recipe.batch_size, -(-EVALUATION_BATCH // micro_batches)
    train_epochs: Callable[..., Iterator[Epoch]] = partial(
        fit, recipe=recipe, transfer=transfer, epochs=epochs, iterations_per_epoch=len(train[0]) // size,
        device=device, precision=precision, memory_format=memory_format, micro_batches=micro_batches, **more,
    )  # fmt: skip
    place(state, torch.device(device), memory_format)
    planned = phases(recipe, transfer, epochs)
    always_frozen = min(frozen_count(state.net, phase.freeze) for phase in planned)
    for phase in planned:
        if state.epoch >= phase.last_epoch:
            continue
        count = frozen_count(state.net, phase.freeze)
        learned_before = phase.first_epoch > 1 and count > always_frozen
        # The running average of stages that have learned differs from the stages, and needs features of its own.
        if count == 0 or (learned_before and state.ema is not None):
            yield from _until(phase.last_epoch, train_epochs(state, _batches(train, size), val))
            continue
        front, net = _cut(state.net, count)
        key = _key(front, train[0], fingerprint, device, precision)
        seen = []
        for name, (images, labels) in (("train", train), ("val", val)):
            path = folder / f"{key}.{name}.npy"
            features = yield from compute(path, front, images, device, precision, batch_size, _FEATURES)
            seen.append((features, labels))
        behind = replace(state, net=net, ema=None if state.ema is None else _cut(state.ema, count)[1])
        on_features = train_epochs(behind, _batches(seen[0], size), seen[1])
        for epoch in _until(phase.last_epoch, on_features):
            state.epoch, state.plateau, state.loss_scale = behind.epoch, behind.plateau, behind.loss_scale
            yield epoch


def _until(last: int, epochs: Iterator[Epoch]) -> Iterator[Epoch]:
    for epoch in epochs:
        yield epoch
        if epoch.number == last:
            return


def _batches(split: tuple[npt.NDArray[Any], npt.NDArray[Any]], size: int) -> Batches:
    """Shuffled batches of faces [n, h, w] or of features; the last, incomplete one is dropped."""
    images, labels = split

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(images), generator=generator).numpy()
        for start in range(0, len(images) - size + 1, size):
            chosen = order[start : start + size]
            x, y = torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen])
            yield (x.float().unsqueeze(1) if x.ndim == 3 else x), (y if y.is_floating_point() else y.long())

    return batches


class _ToBits(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Any shape; bfloat16 as its bits in int16, since NumPy has no such type."""
        return x.contiguous().view(torch.int16) if x.dtype == torch.bfloat16 else x


def _from_bits(x: Tensor) -> Tensor:
    return x.view(torch.bfloat16) if x.dtype == torch.int16 else x


def _unchanged(x: Tensor) -> Tensor:
    return x


def _cut(net: nn.Module, count: int) -> tuple[nn.Sequential, StagedNet]:
    """The first `count` stages with everything before them, and `net` without these stages; both share its parameters.

    The output of the first is the input of the second. The second still has every parameter under its name, so that
    weight limits, freezing and averaging work as before.
    """
    if not isinstance(net, StagedNet):
        raise ModelError(f"{type(net).__name__} cannot be cut after its frozen stages; train without the cache")
    front = net.front(count)
    for name in net.auxiliary:
        if net.backbone.get_submodule(name) in front:
            raise ModelError(f"an auxiliary head uses {name}, which is frozen; train without the cache")
    behind = _skipping(net, set(front))
    assert isinstance(behind, StagedNet)
    behind.input = copy.copy(net.input)
    behind.input.__dict__["forward"] = _from_bits
    return nn.Sequential(*front, _ToBits()), behind


def _skipping(module: nn.Module, skipped: set[nn.Module]) -> nn.Module:
    """A copy with the same parameters in which the `skipped` parts return their input."""
    twin = copy.copy(module)
    if module in skipped:
        twin.__dict__["forward"] = _unchanged
    elif isinstance(module, nn.Sequential | StagedNet):
        twin._modules = {name: child and _skipping(child, skipped) for name, child in module._modules.items()}
    return twin


@torch.inference_mode()
def _key(front: nn.Sequential, images: npt.NDArray[Any], fingerprint: str, device: str, precision: Precision) -> str:
    """A hash of the frozen weights, the faces, and the features of the first faces (normalisation, size, precision)."""
    digest = hashlib.sha256(tensors_sha256(dict(front.state_dict()), {"faces": fingerprint}).encode())
    (probe,) = in_batches(front, front, images[:_PROBES], device, precision)
    digest.update(f"{probe.dtype} {tuple(probe.shape)}".encode())
    digest.update(probe.cpu().numpy().tobytes())
    return digest.hexdigest()[:24]
