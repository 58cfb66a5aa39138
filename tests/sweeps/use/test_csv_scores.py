"""Scores of a net on a csv, and pictures of single faces."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fer_data import DataOptions
from fer_models import LeNetConfig, Recipe
from sweeps import Space, TrialConfig, run_sweep
from sweeps.cli.main import main
from sweeps.runs import find_run
from sweeps.use.csv_scores import score_csv
from sweeps.use.find_model import find_model
from tests.fer_data.image_trees import save

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

LENET = TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.01, batch_size=8), precision="fp32",
                    memory_format="contiguous")  # fmt: skip


def test_faces_are_resized_as_those_that_the_net_was_trained_on(tmp_path: Path) -> None:
    csv, out, rng = tmp_path / "noise.csv", tmp_path / "runs", np.random.default_rng(0)
    rows = ["emotion,pixels,Usage"]
    for usage, count in (("PublicTest", 14), ("Training", 14), ("PrivateTest", 7)):
        images = rng.integers(0, 256, (count, 48 * 48))
        rows += [f"{n % 7},{' '.join(map(str, image))},{usage}" for n, image in enumerate(images)]
    csv.write_text("\n".join(rows) + "\n")
    data = DataOptions(source=str(csv), resize=96, resize_method="bicubic")
    run_sweep(Space(suggest=lambda trial: LENET), data=data, trials=1, epochs=1, name="night", out=out,
              runner="inline", figures=False)  # fmt: skip
    file = str(tmp_path / "net.onnx")
    assert main(["export", "night/0", "--format", "onnx", "--file", file, "--out", str(out)]) == 0
    wanted = find_run("night/0", out).predict("val")
    for model, tolerance in (("night/0", 1e-6), (file, 1e-4)):
        scored = score_csv(csv, find_model(model, out))
        np.testing.assert_allclose(scored.probabilities[:14], wanted, atol=tolerance)


def test_a_picture_that_is_only_a_face_is_resized_as_those_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rng = tmp_path / "runs", np.random.default_rng(0)
    for split, name, number in product(("train", "val", "test"), ("happy", "sad"), range(4)):
        save(tmp_path / f"faces/{split}/{name}/{number}.png", rng.integers(0, 256, (24, 24)).astype(np.uint8))
    data = DataOptions(source=str(tmp_path / "faces"), resize=48, resize_method="lanczos")
    run_sweep(Space(suggest=lambda trial: LENET), data=data, trials=1, epochs=1, name="night", out=out,
              runner="inline", figures=False)  # fmt: skip
    capsys.readouterr()
    asked = ["predict", str(tmp_path / "faces/val"), "--whole", "--json", "--model", "night/0", "--out", str(out)]
    assert main(asked) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    found = [one["faces"][0]["probabilities"]["Happy"] for one in results]
    wanted = find_run("night/0", out).predictions().probabilities[:, 0]
    np.testing.assert_allclose(sorted(found), sorted(wanted), atol=1e-5)  # the data set has another order
