"""The cost of each net: parameters, megabytes and multiply-adds, in total and by layer, without running the net."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fer_models.configs.net_config import NetConfig
from fer_models.nets.registry import build, count_parameters

_FP32_BYTES = 4
_COUNTED = (nn.Conv2d, nn.Linear)
_EMPTY = (nn.Sequential, nn.ModuleDict, nn.Identity)


@dataclass(frozen=True)
class Layer:
    """One call of a layer, in the order of the forward pass."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Output shape for one face, without the batch axis."""
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class NetSummary:
    """Costs of a net for one face. Multiply-adds count convolutions and fully connected layers, as papers do."""

    name: str
    source: str
    input: str
    """Channels, height and width of the first layer's input."""
    parameters: int
    """Including auxiliary heads, which exist only in training."""
    megabytes: float
    """Size of the parameters in fp32, in 10^6 bytes."""
    multiply_adds: int
    """Without auxiliary heads."""
    layers: tuple[Layer, ...]


def summarise(config: NetConfig, classes: int) -> NetSummary:
    """Build the net without memory, and pass the shape of a face through it.

    Raises:
        ModelError: the net needs an optional package.
    """
    mean_image = np.zeros((config.size, config.size), dtype=np.float32)
    with torch.device("meta"):
        net = build(config, classes=classes, mean_image=mean_image, generator=torch.Generator("cpu")).eval()
        layers = tuple(_layers(net, torch.zeros(1, 1, config.size, config.size)))
    parameters = count_parameters(net)
    return NetSummary(
        name=config.name,
        source=config.source,
        input=f"{config.channels}x{config.size}x{config.size}",
        parameters=parameters,
        megabytes=parameters * _FP32_BYTES / 1e6,
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        layers=layers,
    )


def layer_table(summary: NetSummary) -> str:
    """A net as text, one line per layer, multiply-adds in millions, and the totals."""
    rows = [("layer", "kind", "output", "parameters", "multiply-adds")]
    for layer in summary.layers:
        shape = "x".join(map(str, layer.output))
        rows.append((layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.multiply_adds / 1e6:,.3f}"))
    own = sum(layer.parameters for layer in summary.layers)
    total = (
        "total" if own == summary.parameters else "total with auxiliary heads",
        "",
        "",
        f"{summary.parameters:,}",
        f"{summary.multiply_adds / 1e6:,.3f}",
    )
    flops = f"{2 * summary.multiply_adds / 1e6:,.1f} MFLOPs per face, two per multiply-add"
    return f"{table([*rows, total], right=(3, 4))}\n{summary.megabytes:.1f} MB; {flops}"


def table(rows: Sequence[Sequence[str]], right: Iterable[int]) -> str:
    """Rows as text, with columns padded to their widest cell; columns in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _layers(net: nn.Module, face: Tensor) -> Iterator[Layer]:
    """Layers in the order of their calls, without containers and without the parts of a layer."""
    called: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, _inputs: object, output: Tensor) -> None:
        called.append((module, tuple(output.shape[1:])))

    names: dict[nn.Module, str] = {}
    for name, module in net.named_modules():
        inside = any(name.startswith(f"{layer}.") for layer in names.values())
        if not inside and (isinstance(module, _COUNTED) or _is_layer(module)):
            names[module] = name
    for module in names:
        module.register_forward_hook(note)
    net(face)
    for module, shape in called:
        yield Layer(
            names[module], type(module).__name__, shape, count_parameters(module), _multiply_adds(module, shape)
        )


def _is_layer(module: nn.Module) -> bool:
    return not list(module.children()) and not isinstance(module, _EMPTY)


def _multiply_adds(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Each output value of a convolution or fully connected layer needs one multiply-add per weight of its filter."""
    if isinstance(module, _COUNTED):
        return int(np.prod(shape)) * module.weight[0].numel()
    return 0
