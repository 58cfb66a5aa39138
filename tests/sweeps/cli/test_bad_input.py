import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps import InputError
from sweeps.cli.main import main, run_main
from tests.sweeps.fake_trials import MY_SPACE, refused
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_plan(plan: Any, **_: Any) -> None:
        raise AssertionError(f"a sweep of {plan.options.data or 'synthetic faces'} was started")

    monkeypatch.setattr("sweeps.cli.main.run_plan", run_plan)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("lenet_spcae", ["unknown space 'lenet_spcae'", "did you mean 'lenet_space'?", "alexnet_space"]),
        ("./nowhere.py", ["nowhere.py: no such file"]),
        ("lenet_space --set learning_rate=1", ["--set: 'learning_rate': unknown setting"]),
        ("lenet_space --set lr_polcy=step", ["--set: 'lr_polcy': unknown setting; did you mean 'lr_policy'?"]),
        ("lenet_space --set lr", ["--set: 'lr': expected key=value"]),
        ("lenet_space --set lr=0 --set batch_size=0 --set flip=2", ["3 faults", "recipe.lr", "got 0", "recipe.batch_size", "augment.flip", "got 2"]),
        ("lenet_space --set lr_policy=[1]", ["recipe.lr_policy"]),
        ("lenet_space --set gamma=0.5", ["recipe.gamma"]),
        (
            "lenet_space --trials 0 --epochs -2 --limit-train 0 --max-concurrent 0 --seed -1 --time-budget 0s",
            ["--trials 0", "--epochs -2", "--limit-train 0", "--max-concurrent 0", "--seed -1", "must be at least 1", "at least 0", "--time-budget 0: must be above 0"],
        ),
        ("lenet_space --epochs many", ["--epochs", "'many'"]),
        ("lenet_space --time-budget 30", ["'30': expected a number and a unit, as 30m"]),
        ("lenet_space --time-budget soon", ["'soon': expected a number and a unit"]),
        ("lenet_space --cpus-per-trial 0", ["--cpus-per-trial 0"]),
        ("lenet_space --cpus-per-trial nan", ["--cpus-per-trial nan"]),
        ("lenet_space --cpus-per-trial 100000", ["--cpus-per-trial 100000", "cores"]),
        ("lenet_space --gpus-per-trial some", ["--gpus-per-trial", "'some': expected a number, as 0.5, or auto"]),
        ("lenet_space --gpus-per-trial -1", ["--gpus-per-trial -1"]),
        ("lenet_space --gpus-per-trial 0.5", ["--gpus-per-trial 0.5", "0 GPUs"]),
        ("lenet_space --device cuda", ["--device cuda", "no NVIDIA GPU"]),
        ("lenet_space --data nowhere.csv", ["nowhere.csv"]),
        ("lenet_space --data .", ["is a folder without images", "give the csv in it"]),
        ("lenet_space --data odd.csv", ["odd.csv"]),
        ("lenet_space --data ''", ["--data"]),
        ("lenet_space --name a/b", ["--name 'a/b'", "letters"]),
        ("lenet_space --name ..", ["--name '..'"]),
        ("lenet_space --resume", ["--resume needs --name"]),
        ("lenet_space --frobnicate", ["--frobnicate", "--help"]),
        ("lenet_space --epocs 3", ["unknown argument --epocs 3; did you mean '--epochs'?"]),
        ("lenet_space --sampler=qcm", ["unknown 'qcm'; did you mean 'qmc'?"]),
        ("lenet_space --runner dask", ["'dask'", "inline"]),
        (
            "lenet_space --sampler qcm --epochs many --trials 0 --epocs 3 --resume --set lr_polcy=step",
            ["did you mean 'qmc'?", "'many': expected a whole number", "--trials 0: must be", "did you mean '--epochs'?", "--resume needs --name", "did you mean 'lr_policy'?"],
        ),
        ("", ["SPACE"]),
    ],
)  # fmt: skip
def test_bad_input(arguments: str, said: list[str], out: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "odd.csv").write_text("these are\nno faces\n")
    message = refused(capsys, lambda: run_main([*shlex.split(arguments), "--out", str(out)]))
    for part in said:
        assert part in message
    assert not out.exists()


def test_a_batch_larger_than_the_split(out: Path, tiny_csv: Path, capsys: Capture) -> None:
    message = refused(capsys, lambda: run_main(["lenet_space", "--data", str(tiny_csv), "--out", str(out)]))
    assert message.startswith("batch_size 64, 128: larger than the train split of 56 images")
    assert "--set batch_size=N" in message
    assert not out.exists()


def test_a_misspelt_name_of_weights(out: Path, tiny_csv: Path, capsys: Capture) -> None:
    arguments = ["vgg16_cut_space", "--data", str(tiny_csv), "--out", str(out), "--set", "weights=hedd"]
    message = refused(capsys, lambda: run_main(arguments))
    assert message == "weights 'hedd': no such file; did you mean 'hed'? (known: faces, hed, imagenet, none)"


def test_balanced_weights_of_a_class_without_faces(out: Path, tiny_csv: Path, tmp_path: Path, capsys: Capture) -> None:
    rows = tiny_csv.read_text().splitlines()
    without = tmp_path / "no_disgust.csv"
    without.write_text("\n".join(row for row in rows if not row.startswith("1,")) + "\n")
    arguments = ["lenet_space", "--data", str(without), "--out", str(out), "--set", "batch_size=8"]
    message = refused(capsys, lambda: run_main([*arguments, "--set", "class_weights=balanced"]))
    assert message.startswith("class_weights 'balanced': the train split has no Disgust")
    assert "--set class_weights=none" in message
    assert not out.exists()


@pytest.mark.parametrize(("images", "said"), [("57", "56"), ("6", "7")])
def test_a_limit_outside_the_split(images: str, said: str, out: Path, tiny_csv: Path, capsys: Capture) -> None:
    arguments = ["lenet_space", "--data", str(tiny_csv), "--limit-train", images, "--out", str(out)]
    message = refused(capsys, lambda: run_main(arguments))
    assert images in message
    assert said in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ('trial.suggest_float("lr", 0.1, 0.001)', "low"),
        ("config(-1)", "above 0"),
        ("1 / 0", "ZeroDivisionError"),
        ('{"lr": 0.1}', "must return a TrialConfig"),
    ],
)
def test_a_space_whose_suggest_is_wrong(
    fault: str, said: str, tmp_path: Path, tiny_csv: Path, out: Path, capsys: Capture
) -> None:
    path = tmp_path / "my_space.py"
    path.write_text(MY_SPACE.replace('config(trial.suggest_float("lr", 0.001, 0.1, log=True))', fault))
    message = refused(capsys, lambda: run_main([str(path), "--data", str(tiny_csv), "--out", str(out)]))
    assert "my_space" in message
    assert said in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ('config(trial.suggest_float("lr", 0.001, 0.1, log=True))', "space my_space: suggest"),
        ("config(0.01)", "my_space.py: TrialConfig"),
    ],
)
def test_a_net_of_ones_own_is_no_configuration(
    place: str, said: str, tmp_path: Path, tiny_csv: Path, out: Path, capsys: Capture
) -> None:
    path = tmp_path / "my_space.py"
    path.write_text(MY_SPACE.replace(place, "TrialConfig(net=torch.nn.Flatten(), recipe=Recipe(lr=0.1))"))
    path.write_text(f"import torch\n{path.read_text()}")
    message = refused(capsys, lambda: run_main([str(path), "--data", str(tiny_csv), "--out", str(out)]))
    assert message.endswith(
        f"{said}: net: expected a configuration, as LeNetConfig(), got Flatten; a net of your own is added in the source "
        "(CONTRIBUTING.md)"
    )


def test_debug_shows_the_traceback(out: Path) -> None:
    with pytest.raises(InputError, match="unknown space 'nope'"):
        run_main(["nope", "--out", str(out), "--debug"])
    with pytest.raises(InputError, match="no sweep 'nope'"):
        main(["status", "nope", "--out", str(out), "--debug"])


def test_an_existing_name_without_resume(run: Callable[..., int], out: Path, capsys: Capture) -> None:
    assert run() == 0
    before = (out / "night" / "journal.jsonl").read_bytes()
    message = refused(capsys, run)
    assert "night exists already: add --resume" in message
    assert (out / "night" / "journal.jsonl").read_bytes() == before


def test_two_drivers_on_one_folder(run: Callable[..., int], out: Path, capsys: Capture) -> None:
    run("--trials", "1")
    before = (out / "night" / "journal.jsonl").read_bytes()
    with hold_folder(out / "night"):
        capsys.readouterr()
        assert run("--trials", "2", "--resume") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the sweep in ")
    assert f"pid {os.getpid()}, since 20" in error
    assert (out / "night" / "journal.jsonl").read_bytes() == before


def test_a_resume_that_asks_for_another_sweep(
    run: Callable[..., int], out: Path, tiny_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    run()
    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    other = tmp_path / "other.csv"
    rows = tiny_csv.read_text().splitlines()
    other.write_text("\n".join([*rows, rows[1]]) + "\n")
    message = refused(
        capsys, lambda: run("--resume", "--seed", "3", "--epochs", "2", "--data", str(other), "--set", "lr=0.1")
    )
    assert message.startswith("night: a resume keeps the settings of its start")
    for part in ("--seed: the sweep has 0, given is 3", "--epochs: the sweep has 3, given is 2", "the data (fingerprint)", "--set"):  # fmt: skip
        assert part in message
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == before


def test_a_resume_takes_what_is_left_out_from_the_sweep(run: Callable[..., int], out: Path, capsys: Capture) -> None:
    """Its refusal says "leave out what differs": then leaving out must do."""
    assert run("--epochs", "2", "--trials", "2", "--set", "lr=0.05", "--seed", "5") == 0
    assert run("--resume") == 0, capsys.readouterr().err
    assert len(SweepHistory.load(out / "night" / "journal.jsonl").trials) == 2


@pytest.mark.parametrize("verb", ["resume", "status", "sync"])
def test_a_sweep_that_is_not_there(verb: str, run: Callable[..., int], out: Path, capsys: Capture) -> None:
    assert main([verb, "nihgt", "--out", str(out)]) == 2
    run("--trials", "1")
    message = refused(capsys, lambda: main([verb, "nihgt", "--out", str(out)]))
    assert message.startswith(f"no sweep 'nihgt' in {out}; did you mean 'night'?")


def test_an_unknown_verb(capsys: Capture) -> None:
    assert "statsu" in refused(capsys, lambda: main(["statsu"]))


def test_the_real_command_refuses_bad_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.run", "lenet_space", "--set", "lr=0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --set: recipe.lr: must be above 0, got 0\n"
    assert list(tmp_path.iterdir()) == []


def test_help_and_bad_input_load_no_heavy_library(tiny_csv: Path) -> None:
    script = """
import sys
from sweeps.cli.main import main, run_main
for arguments in (["--help"], ["nope"], ["lenet_space", "--set", "nope=1"], ["lenet_space", "--set", "lr=0"],
                  ["lenet_space", "--data", "nowhere"], ["lenet_space", "--data", sys.argv[1]]):
    try:
        assert run_main(arguments) == 2
    except SystemExit as left:
        assert left.code == 0
assert main(["status", "nope"]) == 2
print(*[name for name in ("torch", "ray", "mlflow", "matplotlib", "sklearn") if name in sys.modules], "end")
"""
    done = subprocess.run([sys.executable, "-c", script, str(tiny_csv)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "end"
    assert done.stderr.count("error: ") == 6
    assert "usage:" in done.stdout
