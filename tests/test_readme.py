"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

pytestmark = pytest.mark.timeout(300)

README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block(word: str) -> str:
    """The one piece of Python that has the word."""
    (found,) = [text for text in PYTHON_BLOCKS if word in text]
    return found


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_the_space_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my_space.py").write_text(block("SPACE ="))
    shown = run(tmp_path, "-m", "sweeps.run", "./my_space.py", "--dry-run", "--set", "batch_size=64")
    assert "sample 20" in shown
    assert "for 10 trials" in shown
    assert [path.name for path in tmp_path.iterdir() if path.name == "runs"] == []


@pytest.mark.long
def test_use_from_python_then_look_at_it(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(block("run_sweep("))
    number, lr, accuracy = run(tmp_path, "script.py").split()
    assert int(number) in range(4)
    assert 0.003 <= float(lr) <= 0.1
    assert 0 < float(accuracy) <= 1
    shown = run(tmp_path, "-m", "sweeps", "status", "from-python")
    assert "sweep from-python: finished; 4 of 4 trials on synthetic faces" in shown
    shown = run(tmp_path, "-m", "sweeps", "sync", "from-python")
    assert "has all of it" in shown


@pytest.mark.parametrize("path", re.findall(r"\]\((docs/[^)]+)\)", README))
def test_what_it_links_to_is_there(path: str) -> None:
    assert (ROOT / path).is_file()


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets
