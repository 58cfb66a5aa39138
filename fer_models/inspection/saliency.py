"""The regions of a face that decide a net's prediction, by the optional package captum: Grad-CAM and occlusion.

Legend: n faces, h and w height and width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_models.errors import ModelError
from fer_models.inspection.activations import Watched
from fer_models.training.evaluate import Pixels, in_batches

_FACES_AT_ONCE = 8
_WINDOWS_AT_ONCE = 16
_WINDOWS_A_SIDE = 6


def check_captum() -> None:
    """Raise ModelError if captum is not installed."""
    _captum()


def grad_cam(
    net: nn.Module, images: Pixels, classes: npt.NDArray[np.integer], layer: Watched
) -> npt.NDArray[np.float32]:
    """Grad-CAM (Selvaraju et al. 2017) of faces [n, h, w], for one class per face and a layer with feature maps: [n, h,
    w].

    The layer's feature maps are weighted by the mean gradient of the class's logit; the positive part is resized to the
    faces' size bilinearly. Values are comparable only within a face.

    Raises:
        ModelError: captum is not installed, or the layer has no feature map.
    """
    if not layer.is_map:
        shape = "x".join(map(str, layer.shape))
        raise ModelError(f"Grad-CAM of layer '{layer.name}': it gives {shape}, expected a map of more than one pixel")
    method, device = _captum().LayerGradCam(net, layer.module), _device_of(net)
    targets = iter(torch.split(torch.tensor(classes, dtype=torch.long, device=device), _FACES_AT_ONCE))

    def attribute(x: Tensor) -> Tensor:
        coarse = method.attribute(x, next(targets), relu_attributions=True)
        return F.interpolate(coarse.detach(), size=x.shape[2:], mode="bilinear")

    with torch.enable_grad():
        maps = list(in_batches(net, attribute, images, device, "fp32", _FACES_AT_ONCE))
    return torch.cat(maps)[:, 0].cpu().numpy()


def occlusion(net: nn.Module, images: Pixels, classes: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """How much covering a pixel lowers the probability of a class (Zeiler and Fergus 2014): faces [n, h, w] -> same.

    A square of the face's mean grey level is moved over the face (see `occlusion_window`). Each pixel has the mean drop
    over the squares that cover it; a negative value means that the probability rises.

    Raises:
        ModelError: captum is not installed.
    """
    method = _captum().Occlusion(lambda x: net(x).softmax(1))
    window, stride = occlusion_window(*images.shape[1:])
    targets = iter(classes.tolist())

    def attribute(x: Tensor) -> Tensor:
        drop: Tensor = method.attribute(
            x,
            sliding_window_shapes=(1, window, window),
            strides=(1, stride, stride),
            baselines=float(x.mean()),
            target=next(targets),
            perturbations_per_eval=_WINDOWS_AT_ONCE,
        )
        return drop

    drops = list(in_batches(net, attribute, images, _device_of(net), "fp32", 1))
    return torch.cat(drops)[:, 0].float().cpu().numpy()


def occlusion_window(height: int, width: int) -> tuple[int, int]:
    """Side and step, in pixels, of the square that covers a face: a sixth of the shorter side, moved by half of it."""
    side = max(2, min(height, width) // _WINDOWS_A_SIDE)
    return side, side // 2


def _device_of(net: nn.Module) -> str:
    return str(next(net.parameters()).device)


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError:
        raise ModelError("Grad-CAM and occlusion need the optional package captum: pip install captum") from None
    return captum.attr
