"""What a dry run says of the time that a sweep takes."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fer_data import AugmentConfig, Faces
from sweeps import Baseline, Space, TrialConfig
from sweeps.options import Options
from sweeps.planning.dry_run import StepCost, dry_run
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from tests.sweeps.fake_trials import config

SPACE = Space(suggest=lambda trial: config(trial.suggest_float("lr", 1e-3, 0.1, log=True)), name="lrs")


@pytest.mark.parametrize(
    ("pruner", "says"),
    [
        ("promoting", "at once, if one in 4 passes the first rung and one in 2 each later rung; "),
        ("halving", "at once, if one in 3 passes the first rung and one in 3 each later rung; "),
        ("one-epoch", "at once, if one in 9 passes the first rung; "),
        ("hyperband", "at once, without pruning\n"),
        ("median", "at once, without pruning\n"),
        ("none", "at once\n"),
    ],
)
def test_the_time_names_the_rule_of_the_pruner(tmp_path: Path, tiny_csv: Path, pruner: str, says: str) -> None:
    asked = {"data": str(tiny_csv), "name": "night", "runner": "inline", "out": tmp_path / "runs", "pruner": pruner}
    printed = StringIO()
    dry_run(make_plan(SPACE, Options.parse(asked), find_hardware), Console(file=printed, width=300))
    assert says in printed.getvalue()


def test_an_epoch_takes_the_time_of_all_its_images_and_views(
    tmp_path: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(faces: Faces, title: str, config: TrialConfig, device: str) -> StepCost:
        return StepCost(title, config, parameters=1, peak_bytes=1, images_per_second=0.1)

    monkeypatch.setattr("sweeps.planning.dry_run.measure", measure)
    plain = config(batch_size=4)
    both = plain.model_copy(update={"augment": AugmentConfig(flip=0.5, plain_and_augmented=True)})
    baselines = [Baseline("plain", plain), Baseline("both", both)]
    baselines += [Baseline(views, config(batch_size=4, views=views)) for views in ("mirror", "ten_crop")]
    space = Space(suggest=SPACE.suggest, name="lrs", baselines=baselines)
    asked = {"data": str(tiny_csv), "name": "night", "runner": "inline", "out": tmp_path / "runs"}
    printed = StringIO()
    dry_run(make_plan(space, Options.parse(asked), find_hardware), Console(file=printed, width=300))
    rows = [line.split("│") for line in printed.getvalue().splitlines() if "│" in line]
    found = {row[1].strip(): row[6].strip() for row in rows}
    # At 10 s per image: 56 train faces once or twice, and a third of 10 s for each view of 14 val faces
    assert [found[one.name] for one in baselines] == ["10 min 07 s", "19 min 27 s", "10 min 53 s", "17 min 07 s"]
