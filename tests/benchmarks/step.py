"""Images a second of `fit` on the memory-mapped faces, and of a bare loop over tensors that lie ready in memory.

    python -m tests.benchmarks.step --repeats N --iterations N --batch-size N

Prints JSON: net → {"ours": [...], "peer": [...]}, the two measured in turns, on one thread. A second is one of
processor time, which other programs on the machine do not stretch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_data import AugmentConfig, Faces, open_cached, prepare
from fer_data.augmentation.batches import train_batches
from fer_models import AlexNetConfig, LeNetConfig, MemoryFormat, NetConfig, Precision, Recipe
from fer_models.configs.precision import device_kind, fastest
from fer_models.nets.registry import build
from fer_models.training.fit import fit
from fer_models.training.state import new_state

NETS: dict[str, NetConfig] = {
    "LeNet": LeNetConfig(),
    "AlexNet, LRN": AlexNetConfig(norm="lrn"),
    "AlexNet, batch norm": AlexNetConfig(norm="batch"),
}


def main() -> None:
    given = _arguments()
    torch.set_num_threads(1)
    faces = open_cached(prepare(None))
    recipe = Recipe(lr=1e-3, momentum=0.9, weight_decay=5e-4, batch_size=given.batch_size)
    print(json.dumps({name: _compare(net, faces, recipe, given) for name, net in NETS.items()}))


def setting(net: NetConfig) -> tuple[Precision, MemoryFormat]:
    """Precision and memory format that a sweep trains `net` in on this machine's processor."""
    return fastest(net.name, device_kind("cpu"))


def _compare(net: NetConfig, faces: Faces, recipe: Recipe, given: argparse.Namespace) -> dict[str, list[float]]:
    images = given.iterations * recipe.batch_size
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    ours, peer = _ours(net, faces, recipe, given), _bare(net, faces, recipe, given.iterations)
    for repeat in range(given.repeats + 1):
        for name, run in (("ours", ours), ("peer", peer)):
            seconds = run()
            if repeat > 0:  # the first warms caches up
                rates[name].append(images / seconds)
    return rates


def _ours(net: NetConfig, faces: Faces, recipe: Recipe, given: argparse.Namespace) -> Callable[[], float]:
    """A function that trains an epoch of `iterations` batches with `fit` and returns its processor seconds."""
    precision, memory_format = setting(net)
    clock = _Clock()

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        drawn = train_batches(faces.train, recipe.batch_size, AugmentConfig(), generator)
        return clock.around(drawn, given.iterations)

    epochs = fit(
        new_state(_build(net, faces), recipe),
        batches,
        (faces.val.images[: recipe.batch_size], faces.val.labels[: recipe.batch_size]),
        recipe=recipe,
        epochs=given.repeats + 1,
        seed=0,
        iterations_per_epoch=given.iterations,
        precision=precision,
        memory_format=memory_format,
    )

    def epoch() -> float:
        next(epochs)
        return clock.seconds

    return epoch


class _Clock:
    """Takes the time from the first batch that is asked for to when the next one after the last is."""

    seconds = 0.0

    def around(self, batches: Iterator[tuple[Tensor, Tensor]], count: int) -> Iterator[tuple[Tensor, Tensor]]:
        started = time.process_time()
        for _ in range(count):
            yield next(batches)
        self.seconds = time.process_time() - started


def _bare(net: NetConfig, faces: Faces, recipe: Recipe, iterations: int) -> Callable[[], float]:
    """A function that does the same number of steps with nothing around them, and returns their processor seconds."""
    precision, memory_format = setting(net)
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    model = _build(net, faces).to(memory_format=layout).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
    size = recipe.batch_size
    images = torch.tensor(faces.train.images[: iterations * size]).float().unsqueeze(1)
    labels = torch.tensor(faces.train.labels[: iterations * size]).long()
    batches = list(zip(torch.split(images, size), torch.split(labels, size), strict=True))
    return partial(_bare_loop, model, optimizer, batches, precision)


def _bare_loop(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]], precision: Precision
) -> float:
    started = time.process_time()
    for x, labels in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(x)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return time.process_time() - started


def _build(net: NetConfig, faces: Faces) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return build(net, classes=len(faces.classes), mean_image=faces.mean_image(), generator=generator)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--repeats", "--iterations", "--batch-size"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
