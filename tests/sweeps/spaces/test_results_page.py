"""docs/results.md says what was trained: parameters, sizes and floors are worked out again from the rows' commands."""

import os
import re

import numpy as np
import pytest
import torch

from fer_data import DataOptions, open_cached, prepare
from fer_models.nets.registry import build, count_parameters
from sweeps.config import parse_settings, with_settings
from sweeps.spaces.find import find_space
from tests import ROOT

PAGE = (ROOT / "docs/results.md").read_text()

CURED = ["norm=batch", "channels=1", "normalisation=standardise"]
ROWS = [
    ("compact_resnet (finalist)", "compact_resnet_space", []),
    ("lenet", "lenet_space", []),
    ("alexnet, batch norm (finalist, trial 4 of the sweep below)", "alexnet_space", ["norm=batch"]),
    ("vgg_small", "vgg_small_space", []),
    ("googlenet, grey", "googlenet_space", []),
    ("vgg_small_tuned", "vgg_small_tuned_space", []),
    ("vgg16_cut, finetuned, their ensemble", "vgg16_cut_space", []),
    ("happy_sad at 48 px", "happy_sad_space", []),
    ("resnet18 at 96 px, grey", "resnet18_space", ["size=96"]),
    ("resnet34 at 96 px, grey", "resnet34_space", ["size=96"]),
    ("resnet50_v1 at 96 px", "resnet50_v1_space", ["size=96"]),
    ("resnet50 at 96 px, grey", "resnet50_space", ["size=96"]),
    ("inception_v3 at 96 px", "inception_v3_space", ["size=96"]),
    ("vgg16, plain", "vgg16_space", []),
    ("vgg16, He's start and batch norm", "vgg16_space", CURED),
    ("deep_cnn", "deep_cnn_space", []),
]


@pytest.mark.parametrize(("row", "space", "settings"), ROWS, ids=[row for row, _, _ in ROWS])
def test_a_row_has_the_parameters_of_the_net_that_was_trained(row: str, space: str, settings: list[str]) -> None:
    config = with_settings(find_space(space).baselines[0].config, parse_settings(settings))
    with torch.device("meta"):
        net = build(
            config.net,
            classes=2 if space == "happy_sad_space" else 7,
            mean_image=np.zeros((48, 48), np.float32),
            generator=torch.Generator(),
        )
    count = count_parameters(net)
    assert f"| {row} | {count:,} | {count * 4 / 1e6:.1f} |" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heading", "options"),
    [
        ("## Net by net", {}),
        ("On the 1,548 happy and sad faces", {"classes": ("happy", "sad")}),
        ("### Nets that want a GPU", {"limit_train": 8000}),
        ("### Nets that want a GPU", {"limit_train": 4000}),
        ("### Nets that want a GPU", {"limit_train": 1500}),
    ],
)
def test_the_answer_happy_for_every_face_is_worth_what_the_page_says(heading: str, options: dict[str, object]) -> None:
    source = os.environ.get("FER2013_CSV")
    if not source:
        pytest.skip("needs the real FER2013: set FER2013_CSV to its csv")
    faces = open_cached(prepare(DataOptions.model_validate({"source": source} | options)))
    happy = faces.classes.index("Happy" if "Happy" in faces.classes else "happy")
    cells = []
    for split in (faces.val, faces.test):
        assert split.leaked is not None
        clean = split.labels[~split.leaked]
        cells += [f"{(split.labels == happy).mean():.2%}", f"{(clean == happy).mean():.2%} of {len(clean):,}"]
    row = " | ".join(re.sub("%", " %", cell) for cell in cells)
    assert f"| {row} |" in PAGE[PAGE.index(heading) :]
