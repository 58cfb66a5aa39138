"""The verb `predict` on real photographs, bad files and a csv, with a tiny trained net."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fer_data import DataOptions
from fer_models import LeNetConfig, Recipe
from fer_models.packed_nets import PackedNets
from sweeps import Space, TrialConfig, run_sweep
from sweeps.cli.main import main

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]

LENET = TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.01, batch_size=8), precision="fp32",
                    memory_format="contiguous")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    out = tmp_path_factory.mktemp("used")
    run_sweep(Space(suggest=lambda trial: LENET), data=tiny_csv, trials=1, epochs=1, name="night", out=out,
              runner="inline", figures=False)  # fmt: skip
    return out


@pytest.fixture
def predict(finished: Path) -> Callable[..., int]:
    return lambda *words: main(["predict", *map(str, words), "--out", str(finished), "--model", "night/0"])


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(data.astronaut()).save(folder / "face.jpg")
    Image.fromarray(data.astronaut()).save(folder / "more/face.png")
    Image.fromarray(data.coffee()).save(folder / "coffee.webp")
    (folder / "cut.jpg").write_bytes((folder / "face.jpg").read_bytes()[:4000])
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("no photograph")
    return folder


@pytest.mark.parametrize("words", [("album/face.png",), ("album",), ("album/more/../face.png",)])
def test_pictures_are_not_drawn_among_the_photographs(
    words: tuple[str, ...], predict: Callable[..., int], album: Path, capsys: Capture
) -> None:
    (photo := album / "face.png").write_bytes((album / "more/face.png").read_bytes())
    before = photo.read_bytes()
    for folder in (album, album / "drawn") if words == ("album",) else (album,):
        assert predict(*(album.parent / word for word in words), "--draw", folder) == 2
        assert f"--draw {folder}: is a folder of the photographs" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_pictures_in_a_folder_that_cannot_be_read_are_named(
    predict: Callable[..., int], album: Path, capsys: Capture
) -> None:
    (album / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert predict(album / "phone.HEIC") == 1
    alone = capsys.readouterr().err
    assert "phone.HEIC: is neither PNG nor JPEG nor WebP" in alone
    assert predict(album) == 1
    assert alone in capsys.readouterr().err


def test_a_face_has_a_sentence_and_the_net_says_its_record(
    predict: Callable[..., int], album: Path, capsys: Capture
) -> None:
    assert predict(album / "face.jpg") == 0
    shown = capsys.readouterr()
    assert "face.jpg: the image expression is more " in shown.out
    assert "night/0: lenet, trained on tiny" in shown.out
    assert "of 14 faces of val correct (95 % interval" in shown.out
    assert "can be wrong about people" in shown.out


def test_in_a_folder_a_bad_photograph_is_named_and_the_rest_go_on(
    predict: Callable[..., int], album: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert predict(album, "--json", "--draw", tmp_path / "drawn") == 1
    shown = capsys.readouterr()
    results = {Path(one["file"]).name: one for one in json.loads(shown.out)["results"]}
    assert list(results) == ["coffee.webp", "cut.jpg", "empty.png", "face.jpg", "face.png"]
    assert "no face was found; if the whole picture is a face, add --whole" in shown.err
    assert "cut.jpg: is damaged or cut short" in shown.err
    assert results["empty.png"]["error"] == "is empty (0 bytes)"
    (face,) = results["face.jpg"]["faces"]
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert face["box"]["left"] == pytest.approx(180, abs=10)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["face-2.png", "face.png"]


def test_each_photograph_has_its_own_picture(predict: Callable[..., int], album: Path, tmp_path: Path) -> None:
    photos = [album / "face.jpg", album / "more/face.png", album / "face-2.jpg"]
    photos[2].write_bytes(photos[0].read_bytes())
    assert predict(*photos, "--whole", "--draw", tmp_path / "drawn") == 0
    assert len(list((tmp_path / "drawn").iterdir())) == 3


def test_a_path_that_the_system_refuses_is_named_and_the_rest_go_on(
    predict: Callable[..., int], album: Path, capsys: Capture
) -> None:
    assert predict(album / ("long" * 100), album / "absent.csv", album / "face.jpg") == 1
    shown = capsys.readouterr()
    assert "cannot be read: File name too long" in shown.err
    assert "absent.csv: cannot be read: No such file" in shown.err
    assert "face.jpg: the image expression is more" in shown.out


def test_a_net_of_other_classes_refuses_a_csv_and_predicts_the_rest(
    finished: Path, album: Path, tiny_csv: Path, capsys: Capture
) -> None:
    pair = DataOptions(source=str(tiny_csv), classes=("happy", "sad"))
    run_sweep(Space(suggest=lambda trial: LENET), data=pair, trials=1, epochs=1, name="pair", out=finished,
              runner="inline", figures=False)  # fmt: skip
    capsys.readouterr()
    assert main(["predict", str(tiny_csv), str(album / "face.jpg"), "--model", "pair/0", "--out", str(finished)]) == 1
    shown = capsys.readouterr()
    assert "but pair/0 knows Happy, Sad; use a net with these classes" in shown.err
    assert "face.jpg: the image expression is more" in shown.out


def test_a_csv_is_known_by_the_end_of_its_name_in_any_case(
    predict: Callable[..., int], album: Path, tiny_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "FACES.CSV").write_bytes(tiny_csv.read_bytes())
    (tmp_path / "of.csv.jpg").write_bytes((album / "face.jpg").read_bytes())
    assert predict(tmp_path / "FACES.CSV", tmp_path / "of.csv.jpg") == 0
    shown = capsys.readouterr().out
    assert "FACES.CSV: 77 faces" in shown
    assert "of.csv.jpg: the image expression is more" in shown


def test_each_usage_of_a_csv_has_its_own_scores_and_a_caution(
    predict: Callable[..., int], tiny_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert predict(tiny_csv) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for usage, faces, caution in (
        ("Training", 56, "the net may have been trained on these faces"),
        ("PublicTest", 14, "the net may have been selected on these faces"),
        ("PrivateTest", 7, "this evaluation is not counted"),
    ):
        assert re.search(rf"tiny.csv, {usage}: {faces} faces, accuracy [^;]+; {caution}", shown)
    assert predict(tiny_csv, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    parts = result["scores_by_usage"].values()
    assert np.sum([part["confusion"] for part in parts], axis=0).tolist() == result["scores"]["confusion"]
    bare = "\n".join(line.rpartition(",")[0] for line in tiny_csv.read_text().splitlines())
    (tmp_path / "bare.csv").write_text(bare)
    assert predict(tmp_path / "bare.csv", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["scores"]["n"], result["scores_by_usage"]) == (77, {})


def test_the_net_leaves_the_cores_to_the_search_for_faces(
    predict: Callable[..., int], album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, really = [], PackedNets.predict
    monkeypatch.setattr(PackedNets, "predict", lambda *given: (seen.append(torch.get_num_threads()), really(*given))[1])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert predict(album / "face.jpg") == 0
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(threads)


def test_a_whole_picture_is_taken_as_one_face(predict: Callable[..., int], album: Path, capsys: Capture) -> None:
    assert predict(album / "coffee.webp", "--whole", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)["results"]
    assert one["faces"][0]["box"] is None


def test_standard_input_is_a_photograph(
    predict: Callable[..., int], album: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((album / "face.jpg").read_bytes())))
    assert predict("-") == 0
    assert "-: the image expression is more" in capsys.readouterr().out


def test_a_csv_is_scored_and_its_bad_rows_are_named(
    predict: Callable[..., int], tiny_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(tiny_csv.read_text() + "9,1 2 3,Training\n")
    assert predict(bad, "--draw", tmp_path / "drawn") == 1
    shown = capsys.readouterr()
    assert "left out line 79: emotion 9, expected 0..6; 3 pixels, expected 2304" in shown.err
    assert "\n\n" not in shown.err, "a progress bar in a pipe"
    assert "bad.csv: 77 faces" in shown.out
    assert "confusion matrix" in shown.out
    assert (tmp_path / "drawn/bad.png").is_file()
    assert predict(tiny_csv) == 0


def test_each_csv_and_photograph_of_one_name_has_a_picture_of_its_own(
    predict: Callable[..., int], tiny_csv: Path, album: Path, tmp_path: Path
) -> None:
    csvs = [tmp_path / "a/face.csv", tmp_path / "b/face.csv"]
    for csv in csvs:
        csv.parent.mkdir()
        csv.write_bytes(tiny_csv.read_bytes())
    assert predict(*csvs, album / "face.jpg", "--draw", tmp_path / "drawn") == 0
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "drawn").iterdir()}
    assert sorted(drawn) == ["face-2.png", "face-3.png", "face.png"]
    assert drawn["face.png"] == drawn["face-2.png"] != drawn["face-3.png"], "the same faces twice, and a photograph"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nihgt/0", "no sweep 'nihgt' in .*; did you mean 'night'"),
        ("night/7", "night has no trial '7'"),
        ("absent.onnx", "--model absent.onnx: no such file; write it with: python -m sweeps export"),
        (__file__, "a net in a file is an ONNX file of 'python -m sweeps export'"),
        ("models:/night", "expected models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("models:/night@champion", "no registered model 'night'"),
        ("champon", "no net 'champon'; did you mean 'champion'"),
        ("champion", "there is no champion yet: give a run"),
    ],
)
def test_an_unknown_model_is_named(model: str, message: str, finished: Path, album: Path, capsys: Capture) -> None:
    assert main(["predict", str(album / "face.jpg"), "--out", str(finished), "--model", model]) == 2
    import re

    assert re.search(message, capsys.readouterr().err)


def test_a_folder_without_photographs_and_a_damaged_model_are_refused(
    predict: Callable[..., int], tmp_path: Path, finished: Path, capsys: Capture
) -> None:
    (tmp_path / "none").mkdir()
    assert predict(tmp_path / "none") == 2
    assert "no photograph in this folder" in capsys.readouterr().err
    (tmp_path / "odd.onnx").write_bytes(np.arange(99, dtype=np.uint8).tobytes())
    assert main(["predict", "-", "--out", str(finished), "--model", str(tmp_path / "odd.onnx")]) == 2
    assert "odd.onnx: not a net that 'python -m sweeps export' wrote" in capsys.readouterr().err
