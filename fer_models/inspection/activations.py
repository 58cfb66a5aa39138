"""Filters of the first convolution, and outputs of any stage or layer.

Legend: n faces, c channels, h and w height and width, o filters, k kernel size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_common.errors import nearest
from fer_models.errors import ModelError
from fer_models.parts.staged import Staged
from fer_models.training.evaluate import Pixels, in_batches

_FACES_AT_ONCE = 16  # feature maps of a first layer at 224 pixels take megabytes per face
_BLANK = 48


@dataclass(frozen=True, eq=False)
class Watched:
    """A stage or layer whose output can be recorded; a stage's output is that of its last module."""

    name: str
    """The requested name."""
    path: str
    """Path of the module in the net."""
    module: nn.Module
    shape: tuple[int, ...]
    """Shape of its output for one face."""

    @property
    def is_map(self) -> bool:
        """Whether the output is a feature map of more than one pixel."""
        return len(self.shape) == 3 and self.shape[1] * self.shape[2] > 1


def first_filters(net: nn.Module) -> tuple[str, npt.NDArray[np.float32]]:
    """Name and weights [o, k, k] of the first convolution, summed over its channels, which are equal for a grey face.

    Raises:
        ModelError: the net has no convolution.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module.weight.detach().float().sum(dim=1).cpu().numpy()
    raise ModelError(f"{type(net).__name__} has no convolution, so there are no filters to draw")


def watch(net: nn.Module, names: Sequence[str] = ()) -> tuple[Watched, ...]:
    """The named stages and layers, those of `named_modules`; without names, the stages that have feature maps.

    A name of both a stage and a layer means the stage. Of a layer that is used several times, the last
    use counts.

    Raises:
        ModelError: lists every name that is neither a stage nor a layer, or is not used in evaluation.
    """
    used = _used(net)
    paths = {module: path for path, module in net.named_modules()}
    known = {paths[module]: module for module in used}
    stages = {}
    for stage, modules in net.stages() if isinstance(net, Staged) else ():
        inside = [module for module in used if module in modules]
        if inside:
            stages[stage] = inside[-1]
    known |= stages
    unknown = [name for name in names if name not in known]
    if unknown:
        guesses = "; ".join(f"no layer '{name}'{_guess(name, list(known))}" for name in unknown)
        raise ModelError(f"{guesses}; stages are {', '.join(stages)}, layers those of the summary")
    found = [Watched(name, paths[known[name]], known[name], used[known[name]]) for name in names or stages]
    return tuple(one for one in found if names or one.is_map)


def last_map(net: nn.Module) -> nn.Module:
    """The last module, from the last convolution on, whose feature map has more than one pixel; else with one pixel.

    Raises:
        ModelError: the net has no convolution.
    """
    used = _used(net)
    convolutions = [place for place, module in enumerate(used) if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise ModelError(f"{type(net).__name__} has no convolution, so it has no Grad-CAM")
    maps = [(module, shape) for module, shape in list(used.items())[convolutions[-1] :] if len(shape) == 3]
    several = [module for module, (_, height, width) in maps if height * width > 1]
    return several[-1] if several else maps[-1][0]


@torch.inference_mode()
def outputs(net: nn.Module, images: Pixels, layers: Sequence[Watched]) -> dict[str, npt.NDArray[np.float32]]:
    """Outputs of layers for faces [n, h, w] in fp32: name -> [n, *shape]. The net stays on its device."""
    device = str(next(net.parameters()).device)
    names = {one.module: one.name for one in layers}
    last: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {one.name: [] for one in layers}

    def keep(module: nn.Module, output: Tensor) -> None:
        last[names[module]] = output.float().cpu().clone()  # the next layer may write into it

    with _hooked(list(names), keep):
        for _ in in_batches(net, net, images, device, "fp32", _FACES_AT_ONCE):
            for name, output in last.items():
                parts[name].append(output)
    return {name: torch.cat(given).numpy() for name, given in parts.items()}


@torch.inference_mode()
def _used(net: nn.Module) -> dict[nn.Module, tuple[int, ...]]:
    """Modules that return a tensor in evaluation, in the order of their last use, and its shape for one face."""
    used: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, output: Tensor) -> None:
        used.pop(module, None)
        used[module] = tuple(output.shape[1:])

    device = str(next(net.parameters()).device)
    blank = np.zeros((1, _BLANK, _BLANK), np.uint8)
    with _hooked([module for module in net.modules() if module is not net], note):
        list(in_batches(net, net, blank, device, "fp32"))
    return used


@contextmanager
def _hooked(modules: Sequence[nn.Module], tell: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    def hook(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            tell(module, output)

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _guess(name: str, known: Sequence[str]) -> str:
    inside = [path for path in known if path.endswith(f".{name}")]
    return f"; did you mean '{inside[0]}'?" if inside else nearest(name, known)
