"""The verb `inspect` on a real, tiny sweep of two nets, with its pictures in its folder and in MLflow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from PIL import Image

from fer_models import CompactResNetConfig, LeNetConfig, NetConfig, Recipe
from fer_models.training.evaluate import predict
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.after.ensemble import make_ensemble
from sweeps.after.pictures.inspect_net import draw_filters_and_maps, inspect_run
from sweeps.after.pictures.inspected_faces import Shown, chosen_faces, face_from
from sweeps.cli.main import main
from sweeps.runs import find_run
from tests.sweeps.fake_trials import refused
from tracking.figures import inspect_figures
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.upkeep import find_mlflow_run
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]


def _trial(net: NetConfig) -> TrialConfig:
    return TrialConfig(net=net, recipe=Recipe(lr=0.01, batch_size=8), preprocess="mean_image", precision="bf16",
                       memory_format="channels_last")  # fmt: skip


LENET = _trial(LeNetConfig())
COMPACT = _trial(CompactResNetConfig(size=32, widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    """The folder of a sweep `night` of a LeNet and a residual net, trained in bf16 and channels_last."""
    out = tmp_path_factory.mktemp("inspected")
    space = Space(suggest=lambda trial: LENET, baselines=[Baseline("lenet", LENET), Baseline("compact", COMPACT)])
    run_sweep(space, data=tiny_csv, trials=2, epochs=1, name="night", out=out, runner="inline",
              figures=False)  # fmt: skip
    return out


@pytest.fixture
def inspect(finished: Path) -> Callable[..., int]:
    return lambda *words: main(["inspect", *words, "--out", str(finished)])


def test_everything_lies_in_the_trial_s_folder_and_in_mlflow(
    inspect: Callable[..., int], finished: Path, capsys: Capture
) -> None:
    assert inspect("night/0") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "backbone.conv2  Conv2d     50x18x18      25,050          8.100" in shown.out
    assert "8.2 MB; 22.2 MFLOPs per face" in shown.out
    folder = finished / "night/trials/0000/inspect"
    names = ["filters.png", "gradcam.png", "maps_conv1.png", "maps_conv2.png", "occlusion.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert str(folder / name) in shown.out
        with Image.open(folder / name) as picture:
            assert picture.width > 700
    client = MlflowClient(default_uri(finished))
    history = SweepHistory.load(finished / "night/journal.jsonl")
    kept = client.list_artifacts(find_mlflow_run(client, history.started, 0), "inspect")
    assert sorted(Path(one.path).name for one in kept) == names


def test_layers_faces_method_and_folder_are_the_user_s(
    inspect: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    asked = "--layers", "group4,head.1", "--faces", "3,", "--method", "occlusion", "--out-dir", str(tmp_path / "p")
    assert inspect("night/1", *asked) == 0
    names = {"filters.png", "maps_group4.png", "maps_head.1.png", "occlusion.png"}
    assert {path.name for path in (tmp_path / "p").iterdir()} == names
    assert "night/1: compact_resnet" in capsys.readouterr().out


def test_a_sweep_s_end_can_draw_without_captum(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    drawn = draw_filters_and_maps(find_run("night/1", finished))
    assert all(path.parent == finished / "night/trials/0001/inspect" for path in drawn)


def test_without_captum_the_rest_is_drawn_and_the_way_out_said(
    inspect: Callable[..., int], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert inspect("night/0", "--out-dir", str(tmp_path / "p"), "--faces", "1") == 0
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"filters.png", "maps_conv1.png", "maps_conv2.png"}
    assert "pip install captum" in capsys.readouterr().err
    asked = "night/0", "--method", "gradcam", "--out-dir", str(tmp_path / "q")
    assert "pip install captum" in refused(capsys, lambda: inspect(*asked))
    assert not (tmp_path / "q").exists()


def test_captions_have_the_answers_over_all_views(
    tmp_path: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = LENET.model_copy(update={"recipe": Recipe(lr=0.01, batch_size=8, views="mirror")})
    space = Space(suggest=lambda trial: mirrored)
    run_sweep(space, data=tiny_csv, trials=1, epochs=8, name="night", out=tmp_path, runner="inline",
              figures=False, baselines="none")  # fmt: skip
    run = find_run("night/0", tmp_path)
    faces = np.full((6, 48, 48), 255, np.uint8)
    for place, face in enumerate(faces):
        face[:, 8 * place : 8 * place + 8] = 0  # no mirrored one is the same
    shown = Shown(faces, tuple("012345"), (None,) * 6, "bars")
    captions: list[str] = []
    draw = inspect_figures.maps_figure

    def drawn(sheet: inspect_figures.FaceSheet, *given: Any) -> Figure:
        captions[:] = sheet.captions
        return draw(sheet, *given)

    monkeypatch.setattr(inspect_figures, "maps_figure", drawn)
    list(inspect_run(run, shown, folder=tmp_path / "pictures"))
    net = run.net(run.faces())
    both = (predict(net, faces) + predict(net, faces[:, :, ::-1].copy())) / 2
    answers = [f"{run.spec.classes[row.argmax()]} {row.max():.0%}" for row in both]
    assert captions == [f"{place}\npred. {answer}" for place, answer in enumerate(answers)]


def test_faces_are_one_of_each_class_in_turn(finished: Path) -> None:
    run = find_run("night/0", finished)
    one_each = chosen_faces(run)
    assert one_each.labels == (0, 1, 2, 3, 4, 5, 6)
    assert one_each.title == "tiny, val, 7 of n = 14"
    assert chosen_faces(run, "8").labels == (0, 1, 2, 3, 4, 5, 6, 0)
    assert chosen_faces(run, "8").names[-1] == "7", "the second of the first class stands eighth in the csv"
    assert chosen_faces(run, "13,2").labels == (6, 2)


def test_a_picture_is_made_like_the_faces_of_the_run(finished: Path, tmp_path: Path) -> None:
    picture = np.full((96, 96), 200, np.uint8)
    Image.fromarray(picture).save(tmp_path / "me.png")
    shown = face_from(find_run("night/0", finished), tmp_path / "me.png")
    # The mean of the csv's train faces is 30 * 3 + 3.5; `mean_image` is 127.5 + x - mean.
    np.testing.assert_allclose(shown.images, np.full((1, 48, 48), 127.5 + 200 - 93.5), rtol=1e-6)
    assert (shown.names, shown.labels) == (("me.png",), (None,))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layers", "conv1,konv2,fc2"), "no layer 'konv2'; did you mean 'conv2'?; no layer 'fc2'; did you mean"),
        (("--layers", "head", "--method", "gradcam"), "none of head has a feature map"),
        (("--layers", "conv1,,"), "expected names separated by commas"),
        (("--faces", "0"), "--faces '0': expected a number of faces, 1 to 14"),
        (("--faces", "1,14"), "indices in the validation split, 0 to 13"),
        (("--faces", "all"), "--faces 'all'"),
        (("--image", "none.png"), "--image none.png: cannot be read"),
        (("--image", "none.png", "--faces", "2"), "give one"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(
    inspect: Callable[..., int], tmp_path: Path, capsys: Capture, words: tuple[str, ...], message: str
) -> None:
    assert message in refused(capsys, lambda: inspect("night/0", *words, "--out-dir", str(tmp_path / "p")))
    assert not (tmp_path / "p").exists()


def test_an_ensemble_names_its_members(inspect: Callable[..., int], finished: Path, capsys: Capture) -> None:
    make_ensemble([find_run(f"night/{number}", finished) for number in (0, 1)], "mean", "both", finished)
    assert "inspect a member: night/" in refused(capsys, lambda: inspect("both"))


def test_pictures_are_kept_where_mlflow_has_no_such_run(
    inspect: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    asked = "--faces", "1", "--method", "gradcam", "--layers", "conv1", "--out-dir", str(tmp_path / "p")
    assert inspect("night/0", *asked, "--tracking-uri", "http://127.0.0.1:9") == 0
    assert "warning: not in MLflow: " in capsys.readouterr().err
    assert (tmp_path / "p/gradcam.png").exists()
