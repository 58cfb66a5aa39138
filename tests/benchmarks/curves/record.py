"""Training of FER-Curves' configurations, one file each, so that a recording continues after it was stopped.

Legend: n faces, h and w height and width; a run is one configuration under one seed.
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from torch import nn

from fer_data import DataOptions, Faces, open_cached, prepare
from fer_data.augmentation.batches import batches_per_epoch, train_batches
from fer_data.cache.leaks import picture_numbers
from fer_data.cache.stratify import stratified_choice
from fer_data.cache.subsets import limit_train
from fer_models import Diverged, LeNetConfig
from fer_models.nets.registry import build
from fer_models.parts.initialisers import caffe_xavier
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import StagedNet
from fer_models.training.fit import Epoch, fit
from fer_models.training.state import new_state
from sweeps.config import TrialConfig
from tests.benchmarks.curves.space import suggest

FIRST_SEED = 1_000_000
"""Seed of a configuration's first run is this plus its number, and each further seed is that much higher."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a table have in common."""

    pixels: int = 24
    train_faces: int = 3000
    val_faces: int = 1500
    held_out_faces: int = 3500
    epochs: int = 9
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Material:
    """Faces to train on, and those that every epoch is judged on: `val_faces` of val, then those held out of train."""

    faces: Faces
    judged: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def prepared(source: str, setting: Setting) -> Material:
    """The same choice of faces for the same setting; none that is held out is trained on or in val."""
    every = open_cached(prepare(DataOptions(source=source, resize=setting.pixels)))
    faces = limit_train(every, setting.train_faces, seed=0)
    used, val, train = picture_numbers(faces.train.images, every.val.images, every.train.images)
    free = np.flatnonzero(~np.isin(train, np.concatenate((used, val))))
    _, first = np.unique(train[free], return_index=True)
    free = free[np.sort(first)]
    rng = np.random.default_rng(0)
    held = free[stratified_choice(every.train.labels[free], setting.held_out_faces, rng)]
    chosen = stratified_choice(every.val.labels, setting.val_faces, rng)
    judged = np.concatenate((every.val.images[chosen], every.train.images[held])).astype(np.uint8)
    return Material(faces, judged, np.concatenate((every.val.labels[chosen], every.train.labels[held])))


def drawn(number: int) -> tuple[TrialConfig, dict[str, Any]]:
    """Configuration `number` and the values that it was drawn with, whatever else is drawn."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    trial = study.ask()
    return suggest(trial), dict(trial.params)


def record(folder: Path, material: Material, setting: Setting, number: int, repeat: int = 0) -> Path:
    """Train configuration `number` under one more seed and write its curve, unless that is there."""
    target = folder / f"{number:05d}-{repeat}.npz"
    if target.exists():
        return target
    config, params = drawn(number)
    rows, right, diverged = [], [], False
    seed = (repeat + 1) * FIRST_SEED + number
    began = time.perf_counter()
    try:
        for epoch, wall, processor in _timed(_epochs(config, params, material, setting, seed)):
            answers = epoch.val_probabilities.argmax(1) == material.labels
            right.append(np.packbits(answers))
            val = answers[: setting.val_faces]
            loss = -np.log(np.maximum(epoch.val_probabilities[np.arange(len(material.labels)), material.labels], 1e-12))
            rows.append(
                {
                    "epoch": epoch.number,
                    "val_accuracy": float(val.mean()),
                    "held_out_accuracy": float(answers[setting.val_faces :].mean()),
                    "val_loss": float(loss[: setting.val_faces].mean()),
                    "train_loss": epoch.train_loss,
                    "train_accuracy": epoch.train_accuracy,
                    "seconds": wall,
                    "processor_seconds": processor,
                }
            )
    except Diverged:
        diverged = True
    about = {
        "number": number,
        "repeat": repeat,
        "params": params,
        "diverged": diverged,
        "seconds": time.perf_counter() - began,
        "setting": asdict(setting),
        "epochs": rows,
    }
    beside = target.with_suffix(f".{os.getpid()}")
    with beside.open("wb") as file:
        np.savez(file, about=json.dumps(about), right=np.array(right, np.uint8))
    beside.replace(target)
    return target


def _timed(epochs: Iterator[Epoch]) -> Iterator[tuple[Epoch, float, float]]:
    """Each epoch with its seconds of the wall clock and of the processor."""
    while True:
        wall, processor = time.perf_counter(), time.process_time()
        if (epoch := next(epochs, None)) is None:
            return
        yield epoch, time.perf_counter() - wall, time.process_time() - processor


def _epochs(
    config: TrialConfig, params: dict[str, Any], material: Material, setting: Setting, seed: int
) -> Iterator[Epoch]:
    faces, recipe = material.faces, config.recipe
    net = recorded_net(
        config, params, len(faces.classes), faces.mean_image(), setting.pixels, torch.Generator().manual_seed(seed)
    )
    return fit(
        new_state(net, recipe),
        lambda drawn: train_batches(faces.train, recipe.batch_size, config.augment, drawn, setting.device),
        (material.judged, material.labels),
        recipe=recipe,
        epochs=setting.epochs,
        seed=seed,
        iterations_per_epoch=batches_per_epoch(faces.train, recipe.batch_size, config.augment),
        device=setting.device,
        memory_format="channels_last",
    )


def recorded_net(
    config: TrialConfig,
    params: Mapping[str, Any],
    classes: int,
    mean_image: NDArray[np.float32],
    pixels: int,
    generator: torch.Generator,
) -> nn.Module:
    """The configuration's net on faces as small as they are, which its own `size` would enlarge."""
    if isinstance(config.net, LeNetConfig):
        return _small_lenet(params["lenet.width"], pixels, config.net.dropout, classes, mean_image, generator)
    small = config.net.model_copy(update={"size": pixels})
    return build(small, classes=classes, mean_image=mean_image, generator=generator)


def _small_lenet(
    width: int,
    pixels: int,
    dropout: float,
    classes: int,
    mean_image: NDArray[np.float32],
    generator: torch.Generator,
) -> StagedNet:
    """Caffe's LeNet, whose width is 10, on maps of 24 → 20 → 10 → 6 → 3 pixels."""
    backbone = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(1, 2 * width, 5),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(2 * width, 5 * width, 5),
        pool2=nn.MaxPool2d(2),
    )
    side = ((pixels - 4) // 2 - 4) // 2
    head = OrderedDict[str, nn.Module](dropout=Dropout(dropout), fc2=nn.Linear(50 * width, classes))
    neck = OrderedDict[str, nn.Module](fc1=nn.Linear(5 * width * side * side, 50 * width), relu=nn.ReLU())
    net = StagedNet(
        FaceInput("caffe", mean_image, size=pixels),
        nn.Sequential(backbone),
        nn.Sequential(head),
        {"conv1": ("conv1", "pool1"), "conv2": ("conv2", "pool2")},
        neck=nn.Sequential(neck),
    )
    caffe_xavier(net, generator)
    return net
