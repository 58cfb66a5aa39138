"""A sweep is resumed and read from any folder, and a folder's own files neither help nor harm by accident."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.cli.main import main
from tests.sweeps.fake_trials import MY_SPACE
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Run = Callable[..., int]


@pytest.fixture
def here(tmp_path: Path, tiny_csv: Path) -> Path:
    """The working folder, with a csv in it."""
    shutil.copy(tiny_csv, tmp_path / "faces.csv")
    return tmp_path


def elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")


def test_a_sweep_of_relative_paths_is_resumed_from_another_folder(
    run: Run, here: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--data", "faces.csv", "--trials", "1") == 0
    spec = SweepHistory.load(out / "night/journal.jsonl").started.spec
    assert spec["data"]["source"] == str(here / "faces.csv")
    assert spec["space"] == str(here / "my_space.py")
    elsewhere(here, monkeypatch)
    assert main(["status", "night", "--out", str(out)]) == 0
    assert main(["resume", "night", "--out", str(out)]) == 0
    assert run_again("../my_space.py", "../faces.csv", out, "--trials", "2") == 0
    assert len(SweepHistory.load(out / "night/journal.jsonl").trials) == 2


def run_again(space: str, data: str, out: Path, *more: str) -> int:
    return main(["run", space, "--data", data, "--out", str(out), "--name", "night", "--resume", *more])


def test_a_space_that_was_shipped_to_the_working_folder_is_found_there(
    run: Run, here: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--trials", "1") == 0
    (here / "job").mkdir()
    shutil.move(here / "my_space.py", here / "job")
    monkeypatch.chdir(here / "job")
    assert main(["resume", "night", "--out", str(out)]) == 0


def test_a_space_imports_its_neighbours_from_any_folder(
    run: Run, here: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "rates_of_mine.py").write_text("LOWEST = 0.001\n")
    (here / "my_space.py").write_text("from rates_of_mine import LOWEST\n" + MY_SPACE.replace("0.001", "LOWEST"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    elsewhere(here, monkeypatch)
    assert run_again("../my_space.py", "../faces.csv", out, "--trials", "1", "--runner", "inline") == 0


def test_a_path_of_weights_means_the_same_from_any_folder(run: Run, here: Path, out: Path) -> None:
    import numpy as np
    import torch

    from fer_models import LeNetConfig
    from fer_models.nets.registry import build
    from fer_models.training.weights import save_weights

    net = build(LeNetConfig(), classes=7, mean_image=np.zeros((48, 48), np.float32), generator=torch.Generator())
    save_weights(net, here / "w.safetensors", {})
    assert run("--trials", "1", "--set", "weights=w.safetensors") == 0
    config = SweepHistory.load(out / "night/journal.jsonl").trials[0].started.config
    assert config["transfer"]["weights"] == str(here / "w.safetensors")


@pytest.mark.parametrize("module", ["sweeps", "sweeps.run"])
def test_a_file_that_hides_a_package_is_named_in_a_line(module: str, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("")
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text("")
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: numpy/, ray.py in the working folder")
    assert "Traceback" not in done.stderr
