"""`fit`'s own steps and batches, as they are and replayed as CUDA graphs: equal? how much faster?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from fer_common.captured import CudaGraph, Graph, own_stream
from fer_data import Faces
from tests.gpu.cases import Nets, Training
from tests.gpu.report import Row
from tests.gpu.speed import held_up, on_gpu, seconds_per_step
from tests.replayed import Replayed

_APART = 1e-3
"""The learning rate is rounded to fp32 in a graph, and rounding grows from step to step."""


def graph_of(device: str) -> Callable[[], Graph]:
    return CudaGraph if on_gpu(device) else Replayed


def replayed(faces: Faces, device: str, nets: Nets, steps: int, seconds: float) -> Iterator[Row]:
    """Losses of the same steps in fp32, dropout included, on deterministic kernels; then speed in the usual precision."""
    with own_stream(device):
        yield from _replayed(faces, device, nets, steps, seconds)


def _replayed(faces: Faces, device: str, nets: Nets, steps: int, seconds: float) -> Iterator[Row]:
    graph, before = graph_of(device), torch.backends.cudnn.deterministic
    for name, (net, recipe) in nets.items():
        torch.backends.cudnn.deterministic = True
        usual = Training(faces, net, recipe, device, "fp32").losses(steps)
        again = Training(faces, net, recipe, device, "fp32", graph=graph).losses(steps)
        torch.backends.cudnn.deterministic = before
        apart = float(((usual - again).abs() / usual.abs()).max())
        text = f"largest relative difference of {steps} losses {apart:.1e}"
        yield Row(f"graph {name}: equal to eager", apart < _APART, text, {"apart": apart})
        # After the comparison, and in turn: a clock that rises favours neither.
        eager, as_graph = Training(faces, net, recipe, device), Training(faces, net, recipe, device, graph=graph)
        as_graph.losses(8)
        pairs = [(seconds_per_step(eager.step, device, seconds), seconds_per_step(as_graph.step, device, seconds))
                 for _ in range(3)]  # fmt: skip
        best = [min(times) for times in zip(*pairs, strict=True)]
        rates = {"eager": recipe.batch_size / best[0], "graph": recipe.batch_size / best[1]}
        text = f"eager {rates['eager']:,.0f}, graph {rates['graph']:,.0f} images/s, {best[0] / best[1]:.2f} times"
        values = rates | {f"{name}_{number}": pair[side] for number, pair in enumerate(pairs)
                          for side, name in enumerate(("eager", "graph"))}  # fmt: skip
        if on_gpu(device):
            values |= held_up(as_graph.step, steps=8)
            text += f"; {values['blocking']:.1f} blocking calls"
        yield Row(f"graph {name}, batch {recipe.batch_size}: speed", None, text, values)
