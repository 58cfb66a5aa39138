"""What a process finds out about itself and others: modules, versions, user, terminal."""

import io
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fer_common.console import new_console
from fer_common.own_modules import command, environment
from fer_common.user import user_name
from fer_common.versions import versions


def test_a_module_of_the_project_runs_in_any_folder(tmp_path: Path) -> None:
    (tmp_path / "platform.py").write_text("raise SystemExit('a file here hides the library')")
    done = subprocess.run(
        command("fer_common.versions"), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_path_of_modules_is_kept_without_its_empty_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/own/modules{os.pathsep}")
    _, *others = environment()["PYTHONPATH"].split(os.pathsep)
    assert others == ["/own/modules"]


def test_versions_are_those_that_are_installed() -> None:
    assert versions(["pydantic", "no-such-package"]) == {
        "python": platform.python_version(), "pydantic": version("pydantic"), "no-such-package": "not installed",
    }  # fmt: skip


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 123_456)
    assert user_name() == "123456"
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setenv("LOGNAME", "ann")
    assert user_name() == "ann"


def test_piped_output_is_wide_enough_for_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console = new_console()
    console.print("[bold]1 of 2[/] " + "x" * 300)
    assert console.width == 160
    assert sys.stdout.getvalue() == "[bold]1 of 2[/] " + "x" * 300 + "\n"  # type: ignore[attr-defined]
