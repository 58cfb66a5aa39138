"""What a net says of faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_models.recipe import MemoryFormat, Precision
from fer_models.state import move

_BATCH_SIZE = 512


def predict(
    net: nn.Module,
    images: npt.NDArray[np.uint8],
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "contiguous",
    batch_size: int = _BATCH_SIZE,
) -> npt.NDArray[np.float32]:
    """Probabilities [n, classes] of uint8 faces [n, h, w]. The net is moved to `device`."""
    move(net, torch.device(device), memory_format)
    result: npt.NDArray[np.float32] = (
        predict_logits(net, images, device=device, precision=precision, batch_size=batch_size).softmax(1).cpu().numpy()
    )
    return result


@torch.inference_mode()
def predict_logits(
    net: nn.Module,
    images: npt.NDArray[np.uint8],
    *,
    device: str,
    precision: Precision,
    batch_size: int = _BATCH_SIZE,
) -> Tensor:
    """Float32 logits [n, classes] on `device`, where the net already is; its training mode is kept."""
    was_training = net.training
    net.eval()
    outputs = []
    for start in range(0, len(images), batch_size):
        # A copy, because torch refuses to share a read-only memory map.
        pixels = torch.tensor(np.asarray(images[start : start + batch_size])).to(device)
        with autocast(device, precision):
            outputs.append(net(pixels.float().unsqueeze(1)).float())
    net.train(was_training)
    return torch.cat(outputs)


def autocast(device: str, precision: Precision) -> Any:
    """A context that computes in bfloat16 where that is safe, or leaves everything in float32."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
