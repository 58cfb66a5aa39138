"""Runs that were validated on a fold: what is made from them, and what they are compared with, is on the same faces."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from fer_data import DataOptions, open_cached, prepare
from fer_models import LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.cli.main import main, run_main
from sweeps.runs import find_run
from tests.fer_data.image_trees import write_tree
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import refused

pytestmark = pytest.mark.timeout(240)

Capture = pytest.CaptureFixture[str]


def _lenet(lr: float) -> TrialConfig:
    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=8))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    """A sweep of two configurations on two folds each, `folds`, and one without folds, `night`."""
    out = tmp_path_factory.mktemp("folds")
    baselines = [Baseline(f"lr {lr}", _lenet(lr)) for lr in (0.01, 0.02)]
    space = Space(suggest=lambda trial: _lenet(0.01), baselines=baselines, pruner="none")
    run_sweep(space, data=tiny_csv, trials=2, epochs=1, folds=2, name="folds", out=out, runner="inline",
              figures=False, **QUIET)  # fmt: skip
    run_sweep(space, data=tiny_csv, trials=1, epochs=1, name="night", out=out, runner="inline", figures=False, **QUIET)
    return out


@pytest.fixture
def verb(out: Path, no_mlflow: object) -> Callable[..., int]:
    return lambda *words: main([*words, "--out", str(out)])


def on_fold(out: Path, fold: int) -> list[str]:
    return [f"folds/{number}" for number in range(4) if find_run(f"folds/{number}", out).data.fold == fold]


@pytest.mark.long
def test_an_ensemble_is_of_one_fold_and_on_its_faces(
    verb: Callable[..., int], out: Path, tiny_csv: Path, capsys: Capture
) -> None:
    second = on_fold(out, 2)
    said = refused(capsys, lambda: verb("ensemble", *on_fold(out, 1), *second, "--name", "mixed"))
    assert f"{second[0]} val, fold 2 of 2" in said
    assert "choose runs of one fold" in said
    assert not (out / "mixed").exists()
    assert verb("ensemble", *second, "--name", "both") == 0
    assert "tiny, val, fold 2 of 2" in capsys.readouterr().out
    made = find_run("both", out)
    faces = open_cached(prepare(DataOptions(source=str(tiny_csv), fold=2, folds=2)))
    np.testing.assert_array_equal(made.faces().val.images, faces.val.images)
    np.testing.assert_array_equal(made.predictions().labels, faces.val.labels)
    assert verb("svm", second[0], "--name", "svm") == 0
    assert find_run("svm", out).data.fold == 2
    capsys.readouterr()
    assert verb("compare", second[0], "both", "svm") == 0
    assert "val, fold 2 of 2" in capsys.readouterr().out


def test_runs_of_different_folds_are_not_compared_face_by_face(
    verb: Callable[..., int], out: Path, capsys: Capture
) -> None:
    first, second = on_fold(out, 1), on_fold(out, 2)
    assert verb("compare", *second) == 0
    capsys.readouterr()
    said = refused(capsys, lambda: verb("compare", first[0], second[0]))
    assert "val, fold 1 of 2" in said
    assert "val, fold 2 of 2" in said


@pytest.mark.parametrize(
    ("run", "words"),
    [("folds/0", ()), ("night/0", ("--folds", "2")), ("night/0", ("--fold", "1/2")), ("folds/0", ("--fold", "2/2"))],
)
def test_no_trial_begins_with_weights_that_have_seen_its_val_faces(
    run: str, words: tuple[str, ...], out: Path, tiny_csv: Path, capsys: Capture
) -> None:
    asked = ["lenet_space", "--data", str(tiny_csv), "--runner", "inline", "--set", f"weights=run:{run}",
             "--set", "batch_size=8", "--out", str(out), "--name", "leak", *words]  # fmt: skip
    said = refused(capsys, lambda: run_main(asked))
    assert f"weights 'run:{run}': {run} has seen faces that folds hold out" in said
    assert not (out / "leak").exists()


def test_a_copy_of_the_data_has_the_same_faces(out: Path, tiny_csv: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = Path(shutil.copyfile(tiny_csv, tmp_path / tiny_csv.name))
    for setting in ("weights=run:folds/0", "distill=folds/0"):
        asked = ["lenet_space", "--data", str(copy), "--runner", "inline", "--set", setting, "--set", "batch_size=8",
                 "--out", str(out), "--name", "leak"]  # fmt: skip
        assert "folds/0 has seen faces that folds hold out" in refused(capsys, lambda asked=asked: run_main(asked))  # type: ignore[misc]


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of 40 images without val and test, each of one grey level, and a sweep `few` on it in another folder."""
    root = tmp_path_factory.mktemp("images")
    _add_images(root / "faces", range(0, 80, 4))
    space = Space(suggest=lambda trial: _lenet(0.01))
    run_sweep(space, data=DataOptions(source=str(root / "faces"), resize=48), trials=1, epochs=1, name="few",
              out=root / "runs", runner="inline", figures=False, **QUIET)  # fmt: skip
    return root / "faces", root / "runs"


def _add_images(folder: Path, levels: Iterable[int]) -> None:
    write_tree(folder, {f"{'xy'[odd]}/{level}.png": level + odd for level in levels for odd in (0, 1)})


def _levels(faces: Path, *splits: str) -> set[int]:
    found = open_cached(prepare(DataOptions(source=str(faces), resize=48)))
    return {int(image[0, 0]) for split in splits for image in getattr(found, split).images}


def _tuned(faces: Path, out: Path, name: str) -> int:
    asked = ["lenet_space", "--data", str(faces), "--resize", "48", "--runner", "inline", "--set", "weights=run:few/0",
             "--set", "batch_size=8", "--trials", "1", "--epochs", "1", "--out", str(out), "--name", name]  # fmt: skip
    return run_main(asked)


def test_no_trial_begins_with_weights_that_have_seen_the_val_faces_of_a_folder_that_grew(
    of_images: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    """A tenth of each class is taken for val and for test, of more images other ones."""
    before, out = of_images
    faces = Path(shutil.copytree(before, tmp_path / "faces"))
    _add_images(faces, range(80, 240, 4))
    seen = len(_levels(before, "train") & _levels(faces, "val", "test"))
    assert seen > 0
    said = refused(capsys, lambda: _tuned(faces, out, "grown"))
    assert f"few/0 was trained on {seen} images that are val or test in this sweep; train it again" in said
    assert not (out / "grown").exists()


@pytest.mark.long
def test_a_trial_may_begin_with_weights_of_other_faces(
    of_images: tuple[Path, Path], tmp_path: Path, no_mlflow: object
) -> None:
    _add_images(tmp_path / "faces", range(100, 180, 4))
    assert _tuned(tmp_path / "faces", of_images[1], "other") == 0


@pytest.mark.long
def test_a_trial_may_begin_with_the_weights_of_its_own_fold(out: Path, tiny_csv: Path, no_mlflow: object) -> None:
    (one, *_) = on_fold(out, 2)
    asked = ["lenet_space", "--data", str(tiny_csv), "--runner", "inline", "--set", f"weights=run:{one}", "--trials", "1",
             "--epochs", "1", "--set", "batch_size=8", "--out", str(out), "--name", "tuned", "--fold", "2/2"]  # fmt: skip
    assert run_main(asked) == 0
