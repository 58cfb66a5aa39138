"""Predictions of a net."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_models.configs.recipe import MemoryFormat, Precision, Views
from fer_models.errors import ModelError
from fer_models.parts.staged import Staged
from fer_models.training.state import move

EVALUATION_BATCH = 512
"""Number of faces per batch."""

CROP_PADDING = 4
"""Pixels of repeated border around a face for ten crops."""

Pixels = npt.NDArray[np.uint8 | np.float32]
"""Faces [n, h, w] in 0..255."""


def predict(
    net: nn.Module,
    images: Pixels,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "contiguous",
    batch_size: int = EVALUATION_BATCH,
    views: Views = "plain",
) -> npt.NDArray[np.float32]:
    """Probabilities [n, classes] of faces [n, h, w], uint8 or float 0..255. The net is moved to `device`."""
    move(net, torch.device(device), memory_format)
    logits = predict_logits(net, images, device=device, precision=precision, batch_size=batch_size, views=views)
    result: npt.NDArray[np.float32] = logits.softmax(1).cpu().numpy()
    return result


@torch.inference_mode()
def predict_logits(
    net: nn.Module,
    images: Pixels,
    *,
    device: str,
    precision: Precision,
    batch_size: int = EVALUATION_BATCH,
    views: Views = "plain",
) -> Tensor:
    """Float32 logits [n, classes] on `device`, where the net already is; its training mode is kept.

    Over several views they are the logarithms of the averaged probabilities.
    """

    def logits(x: Tensor) -> Tensor:
        seen = [net(view).float() for view in look(x, views)]
        return seen[0] if len(seen) == 1 else _averaged(torch.stack(seen))

    return torch.cat(list(in_batches(net, logits, images, device, precision, batch_size)))


def in_batches(
    net: nn.Module,
    function: Callable[[Tensor], Tensor],
    images: Pixels,
    device: str,
    precision: Precision,
    batch_size: int = EVALUATION_BATCH,
) -> Iterator[Tensor]:
    """Apply `function`, which calls `net` in evaluation, to each batch of faces [n, h, w].

    Maps [n, c, h, w] and features [n, f] are passed unchanged.
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    for start in range(0, len(images), batch_size):
        # A copy, because torch refuses to share a read-only memory map.
        x = torch.tensor(np.asarray(images[start : start + batch_size])).to(device)
        with autocast(device, precision):
            output = function(x.float().unsqueeze(1) if x.ndim == 3 else x)
        yield output
    for module, training in modes.items():
        module.training = training


@torch.inference_mode()
def predict_features(
    net: nn.Module,
    images: Pixels,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    batch_size: int = EVALUATION_BATCH,
) -> npt.NDArray[np.float32]:
    """Features of faces [n, h, w] before the net's last layer: float32 [n, f]. The net is moved to `device`.

    Raises:
        ModelError: the net has no features.
    """
    if not isinstance(net, Staged):
        raise ModelError(f"{type(net).__name__} has no features below its head")
    net.to(device)
    outputs = in_batches(net, net.features, images, device, precision, batch_size)
    result: npt.NDArray[np.float32] = torch.cat([output.float() for output in outputs]).cpu().numpy()
    return result


def look(x: Tensor, views: Views) -> Iterator[Tensor]:
    """The views of [n, 1, h, w], each of the same shape."""
    if views != "ten_crop":
        yield x
        if views == "mirror":
            yield x.flip(3)
        return
    height, width = x.shape[2:]
    wide = F.pad(x, (CROP_PADDING,) * 4, mode="replicate")
    end = 2 * CROP_PADDING
    for top, left in ((CROP_PADDING, CROP_PADDING), (0, 0), (0, end), (end, 0), (end, end)):
        crop = wide[:, :, top : top + height, left : left + width]
        yield crop
        yield crop.flip(3)


class FaceAndMirror(nn.Module):
    """A net that averages its predictions of each face and of its mirror image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms [n, classes] of the mean of both probabilities, for faces [n, 1, h, w]."""
        return _averaged(torch.stack([self.net(view).float() for view in look(x, "mirror")]))


def _averaged(logits: Tensor) -> Tensor:
    """[views, n, classes] -> logarithm [n, classes] of the mean probability."""
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


def autocast(device: str, precision: Precision) -> Any:
    """A context that computes safe operations in bfloat16 or float16; with fp32 it changes nothing."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype, enabled=precision != "fp32")
