"""One trial on several cards against the same trial on one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from fer_data import AugmentConfig
from fer_models import CompactResNetConfig, Recipe
from fer_models.training.tensor_file import read_tensors
from sweeps.config import TrialConfig
from sweeps.trial.messages import EpochReport, Task, TrialEnd
from sweeps.trial.run_trial import run_trial
from tests.gpu.report import Row
from tracking.record.layout import TrialFolder


def several(faces_folder: Path, device: str, quick: bool) -> Iterator[Row]:
    """An epoch in fp32 on two cards: the weights and the speed of one. On a CPU two workers take the cards' place."""
    name = f"one trial, two workers on {device}"
    net = CompactResNetConfig(widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1)) if quick else CompactResNetConfig()
    if device.startswith("cuda") and torch.cuda.device_count() < 2:
        yield Row(name, None, "skipped: this machine has one card")
        return
    losses, rates, states = [], [], []
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            *_, report, end = run_trial(_task(faces_folder, device, folder, workers, net))
            assert isinstance(report, EpochReport), end
            assert isinstance(end, TrialEnd), end
            losses.append(report.metrics["train_loss"])
            rates.append(report.metrics["images_per_second"])
            states.append(read_tensors(TrialFolder(Path(folder)).last)[0])
    weights = [key for key in states[0] if key.startswith("net.")]
    apart = max((states[0][key].double() - states[1][key].double()).abs().max().item() for key in weights)
    text = (
        f"weights {apart:.0e} apart, loss {losses[0]:.4f} / {losses[1]:.4f}, images/s {rates[0]:,.0f} / {rates[1]:,.0f}"
    )
    yield Row(name, apart < 1e-4, text, {"apart": apart, "losses": losses, "images/s": rates})


def _task(faces_folder: Path, device: str, folder: str, workers: int, net: CompactResNetConfig) -> Task:
    # Almost no learning: what is compared is the sum over the cards, not how rounding grows.
    recipe = Recipe(optimizer="sgd", lr=1e-5, momentum=0.9, batch_size=128)
    config = TrialConfig(
        net=net, recipe=recipe, augment=AugmentConfig(flip=0.5), precision="fp32",
        memory_format="contiguous",
    )  # fmt: skip
    return Task(
        trial=0, attempt=0, folder=folder, config=config, seed=0, epochs=1, faces=str(faces_folder),
        device="cuda" if device.startswith("cuda") else "cpu", workers=workers, gpu_share=float(workers), figures=False,
    )  # fmt: skip
