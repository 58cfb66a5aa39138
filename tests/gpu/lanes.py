"""Several trainings in threads of one process, each on a stream of its own: equal to one alone? how fast together?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
from torch import Tensor

from fer_common.captured import Graph, own_stream
from fer_common.own_draws import drawing_from
from fer_data import Faces
from tests.gpu.cases import Nets, Training
from tests.gpu.graphs import graph_of
from tests.gpu.report import Row
from tests.gpu.speed import on_gpu

_APART = 1e-3
"""As between usual steps and a graph's."""
_WARM_UP = 8

Kind = Callable[[], Graph] | None


def lanes(faces: Faces, device: str, nets: Nets, counts: tuple[int, ...], steps: int, seconds: float) -> Iterator[Row]:
    """Losses in fp32 beside others and alone; then images/s by the number of lanes, usual steps and graphs."""
    net, recipe = nets["compact_resnet"]

    def losses(_: int) -> Tensor:
        with own_stream(device), drawing_from(torch.Generator(device).manual_seed(5)):
            return Training(faces, net, recipe, device, "fp32", graph=graph_of(device)).losses(steps)

    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    alone = losses(0)
    with ThreadPoolExecutor(max(counts)) as threads:
        beside = list(threads.map(losses, range(max(counts))))
    torch.backends.cudnn.deterministic = before
    apart = max(float(((one - alone).abs() / alone.abs()).max()) for one in beside)
    text = f"largest relative difference of {steps} losses {apart:.1e}, in each of {max(counts)} lanes"
    yield Row("lanes compact_resnet: equal to alone", apart < _APART, text, {"apart": apart})
    for name, kind in (("usual steps", None), ("graphs", graph_of(device))):

        def training(kind: Kind = kind) -> Training:
            return Training(faces, net, recipe, device, graph=kind)

        rates = {count: _images_per_second(training, count, device, seconds) for count in counts}
        text = ", ".join(f"{count}: {rate:,.0f}" for count, rate in rates.items()) + " images/s in all"
        values = {str(count): rate for count, rate in rates.items()}
        yield Row(f"lanes compact_resnet, batch {recipe.batch_size} each, {name}", None, text, values)


def _images_per_second(training: Callable[[], Training], count: int, device: str, seconds: float) -> float:
    """Of `count` trainings at once."""
    ready = Barrier(count)

    def train(number: int) -> float:
        with own_stream(device), drawing_from(torch.Generator(device).manual_seed(number)):
            one = training()
            one.losses(_WARM_UP)
            ready.wait(60)
            started, done = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                one.losses(5)  # which waits for this stream
                done += 5
            return done * one.recipe.batch_size / (time.perf_counter() - started)

    with ThreadPoolExecutor(count) as threads:
        total = sum(threads.map(train, range(count)))
    if on_gpu(device):
        torch.cuda.empty_cache()
    return total
