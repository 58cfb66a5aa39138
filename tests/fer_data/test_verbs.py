import json
import os
import subprocess
import sys

import pytest
from matplotlib.image import imread

import fer_data
from fer_data.cli import main
from tests.fer_data.image_trees import two_classes


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def source(tmp_path):
    return two_classes(tmp_path / "pets")


def test_describe_prints_counts_and_says_where_the_picture_is(source, here, capsys):
    assert main(["describe", str(source)]) == 0
    printed = capsys.readouterr().out
    assert "cats" in printed
    assert "12 images of 8×8, 12 of them distinct" in printed
    assert "picture: pets-overview.png" in printed
    assert (here / "pets-overview.png").is_file()


def test_describe_as_json_draws_only_on_request(source, here, capsys):
    assert main(["describe", str(source), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["val"] == {"cats": 2, "dogs": 2}
    assert found["rows"] == 12
    assert list(here.iterdir()) == []
    assert main(["describe", str(source), "--json", "--picture", "mine.png"]) == 0
    assert [path.name for path in here.iterdir()] == ["mine.png"]


def test_options_shape_what_is_described(source, capsys):
    assert (
        main(["describe", str(source), "--json", "--classes", "dogs,cats", "--limit-train", "2", "--resize", "16"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["dogs", "cats"]
    assert (found["height"], sum(found["counts"]["train"].values())) == (16, 2)


def test_export_writes_what_can_be_described_alike(source, here, capsys):
    assert main(["export", str(source), "out", "--format", "lmdb"]) == 0
    assert "out: pets as lmdb: train 4, val 4, test 4" in capsys.readouterr().out
    prints = [fer_data.open_cached(fer_data.prepare(path)).fingerprint for path in (source, here / "out")]
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["describe"], "the following arguments are required: SOURCE"),
        (["descibe", "x"], "unknown 'descibe'; did you mean 'describe'?"),
        (["describe", "nowhere.csv"], "nowhere.csv: no such file"),
        (["describe", "synthetic", "--resize", "4"], "--resize 4: must be at least 8"),
        (["describe", "synthetic", "--fold", "five"], "expected K/N"),
        (["export", "synthetic", ".", "--format", "png"], "exists already"),
        (["export", "synthetic", "out", "--format", "gif"], "unknown 'gif'"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(argv, says, here, capsys):
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert says in printed.err
    assert printed.out == ""
    assert list(here.iterdir()) == []


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(fer_data.DataError):
        main(["describe", "nowhere.csv", "--debug"])


def test_the_module_runs_and_tells_its_exit_code(tmp_path, here):
    environment = {**os.environ, "HOME": str(tmp_path), "COLUMNS": "80"}
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "fer_data", "download", "data"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=here, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot download from Kaggle: ")
    assert "Traceback" not in done.stderr
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_the_official_file_is_counted_and_exported_exactly(here, capsys):
    path = os.environ.get("FER2013_CSV")
    if not path:
        pytest.skip("needs the real FER2013: set FER2013_CSV to its csv")
    assert main(["export", path, "out", "--format", "png"]) == 0
    capsys.readouterr()
    assert main(["describe", "out", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fingerprint"] == fer_data.open_cached(fer_data.prepare(path)).fingerprint
    facts = (
        "rows",
        "distinct_images",
        "val_in_train",
        "test_in_train",
        "test_in_train_or_val",
        "label_conflict_groups",
    )
    assert [found[fact] for fact in facts] == [35_887, 34_034, 280, 288, 314, 57]
    assert found["blank_images"] == 12


@pytest.mark.parametrize("what", ["augment", "preprocess", "first"])
def test_what_a_recipe_does_to_faces_is_drawn(what, source, here, capsys):
    assert main(["show", what, str(source)]) == 0
    assert capsys.readouterr().out == f"picture: pets-{what}.png\n"
    assert imread(here / f"pets-{what}.png").std() > 0.05


def test_variations_are_those_of_the_settings_and_of_a_trial_s_configuration(source, here):
    def drawn(*words: str) -> bytes:
        assert main(["show", "augment", str(source), "--count", "8", "--picture", "seen.png", *words]) == 0
        return (here / "seen.png").read_bytes()

    (here / "config.json").write_text(json.dumps({"augment": {"flip": 0.5, "noise": 30.0}, "preprocess": "none"}))
    plain, varied = drawn(), drawn("--set", "flip=0.5", "--set", "augment.noise=30")
    assert plain != varied
    assert drawn("--config", "config.json") == varied
    assert drawn("--config", "config.json", "--seed", "1") != varied
    assert drawn("--config", "config.json", "--set", "flip=0", "--set", "noise=0") == plain


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "flop=1"], "'flop': unknown setting; did you mean 'flip'?"),
        (["--set", "flip=2"], "flip: must be at most 1, got 2"),
        (["--set", "flip"], "'flip': expected key=value"),
        (["--face", "4"], "--face 4: the train split has 0 to 3"),
        (["--config", "none.json"], "none.json: cannot be read as JSON"),
        (["--count", "0"], "--count 0: must be at least 1"),
    ],
)
def test_bad_input_of_show_is_one_line(words, said, source, here, capsys):
    assert main(["show", "augment", str(source), *words]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert list(here.iterdir()) == []
