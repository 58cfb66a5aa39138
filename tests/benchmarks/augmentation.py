"""Augmentation: images a second of one core, ours and the peers', and its share of a training step, as one table.

    python -m tests.benchmarks.augmentation [fer2013.csv] [--repeats N] [--images N]

All do the same: mirror half of the images, rotate, shift and scale each, add Gaussian noise to half and cut two holes.
The peers are albumentations in a bare loop over arrays in memory, the same in a Dataset and DataLoader as
tutorials show, and Kornia where it is installed. Measured in turns, in seconds of processor time, on one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fer_data import AugmentConfig, Faces, Split, open_cached, prepare
from fer_data.augmentation.batches import train_batches
from fer_models import LeNetConfig, Recipe
from fer_models.nets.registry import build
from fer_models.training.fit import fit
from fer_models.training.state import new_state
from tests.benchmarks.rows import spread

BATCH_SIZE = 128
STEPS = 20
CONFIG = AugmentConfig(
    flip=0.5, rotate_deg=10, shift=0.1, scale=0.1, noise=7, noise_min=3, noise_probability=0.5, cutout=2
)
OURS = "batched"
LOADER = "DataLoader, albumentations"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", nargs="?")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4096, help="of one measurement of ours; the peers take a quarter")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    faces = open_cached(prepare(asked.csv))
    rates, shares = _measured(faces, asked.images, asked.repeats)
    console = Console(width=110)
    console.print(_table(rates, f"{faces.name}, {asked.images:,} images, n = {asked.repeats}: median \\[least–most]"))
    console.print(
        f"share of a LeNet training step (bf16, channels_last, batch {BATCH_SIZE}): "
        f"{spread([100 * share for share in shares], 1)} %, target < 15 %"
    )
    console.print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, load {load:.1f}"
    )


def _measured(faces: Faces, images: int, repeats: int) -> tuple[dict[str, list[float]], list[float]]:
    """Images a second of every way by repeat, and the shares of a step."""
    ways = _ways(faces.train)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    shares = []
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            rate = _rate(way, images if name == OURS else images // 4)
            if repeat > 0:  # the first warms caches up
                rates[name].append(rate)
        if repeat > 0:
            shares.append(_share_of_a_step(faces))
    return rates, shares


def _rate(way: Callable[[], Iterator[int]], images: int) -> float:
    batches = way()
    next(batches)  # whatever is made ready once an epoch is not counted
    done, started = 0, time.process_time()
    while done < images:
        done += next(batches)
    return done / (time.process_time() - started)


def _ways(split: Split) -> Mapping[str, Callable[[], Iterator[int]]]:
    """Functions that give an endless run of batches and yield how many images each has."""
    ways: dict[str, Callable[[], Iterator[int]]] = {
        OURS: partial(_ours, split, CONFIG),
        "albumentations engine": partial(_ours, split, CONFIG.model_copy(update={"engine": "albumentations"})),
        "bare loop, albumentations": partial(_bare_loop, split),
        LOADER: partial(_loader, split),
    }
    if importlib.util.find_spec("kornia"):
        ways["Kornia"] = partial(_kornia, split)
    return ways


def _ours(split: Split, config: AugmentConfig) -> Iterator[int]:
    generator = torch.Generator().manual_seed(0)
    while True:
        for images, _ in train_batches(split, BATCH_SIZE, config, generator):
            yield len(images)


def _pipeline() -> Any:
    """The peers' pipeline, as one would write it down."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(
                rotate=(-10, 10),
                translate_percent=(-0.1, 0.1),
                scale=(0.9, 1.1),
                keep_ratio=True,
                border_mode=cv2.BORDER_REPLICATE,
                p=1,
            ),
            A.GaussNoise(std_range=(3 / 255, 7 / 255), p=0.5),
            A.CoarseDropout(num_holes_range=(2, 2), hole_height_range=(2, 2), hole_width_range=(2, 2), p=1),
        ]
    )


def _bare_loop(split: Split) -> Iterator[int]:
    pipeline, images = _pipeline(), split.images[:]
    while True:
        for image in images:
            pipeline(image=image)
            yield 1


class _FacesDataset(Dataset[tuple[Tensor, int]]):
    def __init__(self, split: Split) -> None:
        self.images, self.labels, self.pipeline = split.images[:], split.labels, _pipeline()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.pipeline(image=self.images[index])["image"]
        return torch.from_numpy(image).unsqueeze(0).float(), int(self.labels[index])


def _loader(split: Split) -> Iterator[int]:
    loader = DataLoader(_FacesDataset(split), BATCH_SIZE, shuffle=True, drop_last=True)
    while True:
        for images, _ in loader:
            yield len(images)


def _kornia(split: Split) -> Iterator[int]:
    import kornia.augmentation as K

    pipeline = nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(degrees=10.0, translate=(0.1, 0.1), scale=(0.9, 1.1), padding_mode="border", p=1.0),
        K.RandomGaussianNoise(std=5 / 255, p=0.5),
        K.RandomErasing(scale=(0.0035, 0.0035), ratio=(1.0, 1.0), p=1.0),
    )
    while True:
        for chosen in torch.randperm(len(split)).split(BATCH_SIZE):
            images = torch.from_numpy(split.images[chosen.numpy()]).unsqueeze(1).float() / 255
            yield len(pipeline(images))


def _share_of_a_step(faces: Faces) -> float:
    """What part of the time of `fit` goes into the batches."""
    recipe = Recipe(lr=1e-3, momentum=0.9, batch_size=BATCH_SIZE)
    net = build(
        LeNetConfig(),
        classes=len(faces.classes),
        mean_image=faces.mean_image(),
        generator=torch.Generator().manual_seed(0),
    )
    clock = _Clock()
    epochs = fit(
        new_state(net, recipe),
        lambda generator: clock.around(train_batches(faces.train, BATCH_SIZE, CONFIG, generator)),
        (faces.val.images[:BATCH_SIZE], faces.val.labels[:BATCH_SIZE]),
        recipe=recipe,
        epochs=1,
        seed=0,
        iterations_per_epoch=STEPS,
        precision="bf16",
        memory_format="channels_last",
    )
    next(epochs)
    return clock.in_batches / clock.whole


class _Clock:
    """Seconds of an epoch, and of them those in which the next batch is made; the first batches warm up."""

    whole = in_batches = 0.0

    def around(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(batches, STEPS // 4)
        begun = time.process_time()
        for _ in range(STEPS - STEPS // 4):
            started = time.process_time()
            batch = next(batches)
            self.in_batches += time.process_time() - started
            yield batch
        self.whole = time.process_time() - begun


def _table(rates: Mapping[str, list[float]], title: str) -> Table:
    table = Table(title=title)
    for heading in ("way", "images/s of a core", "batched / it", "target"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, measured in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[OURS], measured, strict=True)]
        target = "at least 8" if name == LOADER else ""
        table.add_row(name, spread(measured, 0), "" if name == OURS else spread(ratios, 1), target)
    return table


if __name__ == "__main__":
    main()
