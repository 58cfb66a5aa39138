"""The install step of cluster/Dockerfile, replayed with what its COPY lines let into the image."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as a wheel made of the copied files alone installs them."""
    source, made = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("made")
    build = (ROOT / "cluster/Dockerfile").read_text().partition("RUN ")[0]
    for line in re.findall(r"^COPY (.*)$", build, flags=re.MULTILINE):
        *names, target = line.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__", "secrets"))
            else:
                shutil.copy2(ROOT / name, source / target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", made, source], check=True)
    return made


def test_nothing_that_the_packages_read_is_left_out(installed: Path) -> None:
    """Pictures, tables and templates beside the code are in the wheel as well; cluster's files stay in the repository."""
    for package in ("sweeps", "fer_common", "fer_models", "fer_data", "tracking"):
        here, there = (
            {path.relative_to(root) for path in (root / package).rglob("*") if path.is_file() and path.suffix != ".pyc"}
            for root in (ROOT, installed)
        )
        assert there == here


def test_the_command_of_the_image_runs(installed: Path, tmp_path: Path) -> None:
    command = re.search(r"^CMD \[(.*)\]$", (ROOT / "cluster/Dockerfile").read_text(), flags=re.MULTILINE)
    assert command
    _, *words = re.findall(r'"([^"]*)"', command[1])
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env={"PYTHONPATH": str(installed), "HOME": str(tmp_path)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "alexnet_space" in done.stdout
    where = "import sweeps; print(sweeps.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env={"PYTHONPATH": str(installed)},
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert found.stdout.startswith(str(installed))
