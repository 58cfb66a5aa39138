"""The results of the four reports and the project's own records: published number, our number, how to train it again.

    python -m sweeps reproduce            # the rows
    python -m sweeps reproduce ROW        # train one

A row is a baseline of a space, with the length of its report or a shorter one. `python -m sweeps.run ROW` takes it as a
space of one configuration. A test compares the summary of docs/results.md with this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fer_models.configs.transfer_config import PUBLISHED
from sweeps.fixed_space import changed
from sweeps.space import Baseline, Space
from sweeps.spaces import SPACES

H200 = "H200"
"""Measured with 13 other rows at the same time."""


@dataclass(frozen=True)
class Measured:
    """Accuracies of FER2013 in percent, at the epoch that PublicTest selects; leak-free ones without faces of other
    splits."""

    public: float
    public_leak_free: float | None = None
    private: float | None = None
    """None if PrivateTest was not read."""
    private_leak_free: float | None = None
    epochs: str = ""
    minutes: float | None = None
    machine: str = H200


@dataclass(frozen=True)
class Row:
    """One row: a space's baseline with changed `settings`."""

    space: str
    baseline: int
    """Its index among the baselines of the space."""
    epochs: int
    published: str = ""
    """The report's number and the split it was measured on; empty if there is none."""
    ours: Measured | None = None
    """Our result with the recipe of this row."""
    best: str = ""
    """Our best result with the net, if it has another recipe."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None

    def made(self) -> Baseline:
        """The configuration, whose name lists changed settings."""
        return changed(SPACES[self.space].baselines[self.baseline], self.settings)

    def title(self) -> str:
        """The configuration's name, and its pretrained weights, if any."""
        made = self.made()
        weights = made.config.transfer.weights
        return made.name if weights == "none" else f"{made.name}: {PUBLISHED[weights]}"

    def as_space(self, name: str) -> Space:
        """A space with only this configuration."""
        made = self.made()
        return Space(suggest=lambda _: made.config, baselines=[made], max_epochs=self.epochs, trials=1, name=name)


_HAPPY_SAD = ("Happy", "Sad")
_HED = {"transfer.weights": "hed"}
_EXACT = {"recipe.schedule": "exact", "recipe.reference_iterations": None}
"""The report's schedule, unscaled: 20 epochs are a thirtieth of its run, before the learning rate falls."""
_MINUTES = {
    "net.blocks": (1, 2, 1, 1),
    "augment.rotate_deg": 0.0,
    "augment.scale": 0.0,
    "augment.erase": 0.0,
    "recipe.weight_decay": 0.02,
}
_LENET_BEST = "58.90 / 60.35 %"
_ALEXNET = "54.86 % PublicTest, best of three"
_ALEXNET_BEST = "57.95 % PublicTest"
_R_KERAS = "78.27 %, validation of its own split"
_RESNET = "55 % validation, at a seventh of its run"

ROWS: dict[str, Row] = {
    "lenet_inv": Row(
        "lenet_space", 0, 22, "", Measured(53.97, 50.38, 54.39, 50.72, "22", 0.6), best=_LENET_BEST
    ),
    "lenet_step_9": Row("lenet_space", 1, 22, "", Measured(54.28, 50.77, 53.36, 49.59, "22", 0.6), best=_LENET_BEST),
    "lenet_step_8": Row(
        "lenet_space", 2, 22, "53.12 %, best logged validation", Measured(54.14, 51.31, 52.33, 49.28, "22", 0.6),
        best=_LENET_BEST,
    ),
    "lenet_step_5": Row("lenet_space", 3, 22, "", Measured(52.33, 50.56, 50.04, 48.31, "22", 0.6), best=_LENET_BEST),
    "alexnet_1": Row(
        "alexnet_space", 0, 174, _ALEXNET, Measured(56.42, 53.13, 56.42, 52.92, "174", 6.9), best=_ALEXNET_BEST
    ),
    "alexnet_2": Row(
        "alexnet_space", 1, 445, _ALEXNET, Measured(55.50, 52.04, epochs="372 of 446", minutes=6.4), best=_ALEXNET_BEST
    ),
    "alexnet_3": Row(
        "alexnet_space", 2, 174, _ALEXNET, Measured(56.06, 52.92, epochs="174", minutes=7.0), best=_ALEXNET_BEST
    ),
    "resnet50_v1_48": Row("resnet50_v1_space", 0, 20, _RESNET, settings=_EXACT | {"net.size": 48}),
    "resnet50_v1_96": Row("resnet50_v1_space", 0, 10, _RESNET, settings=_EXACT | {"net.size": 96}),
    "resnet50_v1_224": Row(
        "resnet50_v1_space", 0, 20, _RESNET, Measured(45.08, 44.85, epochs="5 of 20", minutes=7.1),
        settings=_EXACT,
    ),
    "googlenet": Row("googlenet_space", 0, 20, "", Measured(59.29, 57.42, epochs="14 of 20", minutes=7.4)),
    "happy_sad_48": Row(
        "happy_sad_space", 0, 10, _R_KERAS, Measured(80.94, 80.60, 80.31, 79.92, "10", 0.3), best="82.30 / 81.60 %",
        classes=_HAPPY_SAD,
    ),
    "happy_sad_244": Row(
        "happy_sad_space", 0, 10, _R_KERAS, Measured(72.03, 71.64, epochs="10", minutes=0.5),
        settings={"net.size": 244}, classes=_HAPPY_SAD,
    ),
    "inception_v3_96": Row(
        "inception_v3_space", 0, 10, "", Measured(31.07, 30.52, epochs="9 of 10", minutes=6.9)
    ),
    "deep_cnn_plain": Row(
        "deep_cnn_space", 0, 9, "62.19 % PrivateTest, which selected", Measured(61.52, 59.53, 61.80, 59.73, "9", 1.0)
    ),
    "deep_cnn_as_it_ran": Row("deep_cnn_space", 1, 9, "61.97 % PrivateTest, which selected"),
    "deep_cnn_augmented": Row(
        "deep_cnn_space", 1, 9, "", Measured(63.33, 61.50, 63.47, 61.44, "9", 1.2),
        settings={"augment.engine": "batched"},
    ),
    "vgg_small": Row(
        "vgg_small_space", 0, 100, "56.9 % test", Measured(55.00, 51.44, 55.45, 51.82, "100", 2.9),
        best="56.39 / 57.06 %",
    ),
    "vgg_small_tuned": Row(
        "vgg_small_tuned_space", 0, 100, "61.5 % test", Measured(59.93, 58.45, 60.30, 58.72, "100", 4.3)
    ),
    "vgg16": Row(
        "vgg16_space", 0, 10, "collapsed to one class", Measured(58.57, 55.91, 58.90, 56.00, "10", 0.4)
    ),
    "vgg16_cured": Row(
        "vgg16_space", 0, 10,
        settings={"net.norm": "batch", "net.channels": 1, "net.normalisation": "standardise"},
    ),
    "vgg16_cut_hed": Row(
        "vgg16_cut_space", 0, 100, "65.9 % test, from ImageNet's weights",
        Measured(47.48, 46.48, epochs="12 of 100", minutes=38.5, machine="1 core"), settings=_HED,
    ),
    "vgg16_cut_hed_finetuned": Row("vgg16_cut_space", 1, 100, "66.5 % test, from ImageNet's weights", settings=_HED),
    "vgg16_cut_hed_whole": Row("vgg16_cut_space", 2, 100, "66.5 % test, from ImageNet's weights", settings=_HED),
    "record-5": Row(
        "compact_resnet_space", 0, 9, "", Measured(62.56, 61.46, epochs="9", minutes=4.9, machine="2 cores, 3 seeds"),
        settings=_MINUTES,
    ),
    "record-60": Row(
        "compact_resnet_space", 0, 64, "", Measured(69.43, 67.88, 70.60, 69.37, "64", 86.5, "1 core"),
        best="70.24 / 70.83 %, width 40",
    ),
    "compact_wide": Row(
        "compact_resnet_space", 0, 100, "", Measured(70.24, 68.42, 70.83, 68.92, "100", 6.5),
        settings={"net.widths": (40, 80, 160, 320), "net.dropout": 0.2},
    ),
    "compact_mixup": Row(
        "compact_resnet_space", 0, 110, "", Measured(69.82, 68.30, 69.88, 68.40, "110", 7.0),
        settings={"augment.mixup": 0.2},
    ),
    "compact_cutmix": Row(
        "compact_resnet_space", 0, 110, "", Measured(68.88, 67.69, epochs="110", minutes=7.3),
        settings={"augment.cutmix": 1.0},
    ),
}  # fmt: skip
"""In the order of the reports: Caffe, R/Keras, DL-course, VGG; then the records."""
