"""Output that a terminal, a disk or a reader does not take never ends the program, nor do closed descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""The locale of a terminal that knows no more than ASCII; Python would otherwise take it for UTF-8."""

PRINT = r"""
import sys
from fer_common.console import let_no_output_fail, new_console
let_no_output_fail()
console, errors = new_console(), new_console(stderr=True)
for line in range(3):
    console.print(f"line {line} of 4 \u00d7 4 \u8868\u60c5")
    errors.print("warning: \u00d7")
sys.exit(7)
"""


def run(*command: str, closing: str = "", **more: Any) -> subprocess.CompletedProcess[bytes]:
    asked: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": os.environ, "cwd": ROOT}
    shell = ["sh", "-c", f'exec "$@" {closing}', "sh"] if closing else []
    return subprocess.run([*shell, sys.executable, *command], timeout=60, check=False, **asked | more)


def test_output_that_nobody_takes_is_dropped() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run("-c", PRINT, stdout=writing, stderr=writing)
    os.close(writing)
    assert done.returncode == 7


def test_a_full_disk_behind_the_output_is_no_fault() -> None:
    with Path("/dev/full").open("wb") as full:
        assert run("-c", PRINT, stdout=full, stderr=full).returncode == 7


def test_what_a_terminal_lacks_is_replaced() -> None:
    done = run("-c", PRINT, env=os.environ | ASCII)
    assert done.returncode == 7
    assert done.stdout.splitlines()[0] == b"line 0 of 4 ? 4 ??"
    assert done.stderr.splitlines()[0] == b"warning: ?"


def test_the_other_command_lines_too() -> None:
    for module in ("fer_data", "fer_models", "cluster"):
        done = run("-m", module, "表情", env=os.environ | ASCII)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr, done.stderr


@pytest.mark.timeout(120)  # imports of torch on a busy machine
@pytest.mark.parametrize("command", [("fer_models", "lenet"), ("sweeps", "list", "--json")])
def test_a_command_that_only_prints_fails_on_a_full_disk(command: tuple[str, ...], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with Path("/dev/full").open("wb") as full:
        done = run("-m", *command, stdout=full, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (2, b"error: stdout: No space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    assert run("-m", *command, stdout=writing, cwd=tmp_path, env=environment).returncode == 0, "its reader is gone"
    os.close(writing)


CLOSED = """
import os
import subprocess
import sys
from fer_common.console import let_no_output_fail
let_no_output_fail()
print("dropped")
print("dropped", file=sys.stderr)
child = subprocess.run([sys.executable, "-c", "import sys; sys.exit(None in (sys.stdin, sys.stdout, sys.stderr))"])
sys.exit(7 if os.open("/dev/null", os.O_RDONLY) > 2 and sys.stdin.read() == "" and child.returncode == 0 else 1)
"""


def test_closed_descriptors_are_dev_null() -> None:
    """Also for the processes that the program starts."""
    assert run("-c", CLOSED, closing="<&- >&- 2>&-").returncode == 7


@pytest.mark.timeout(120)
def test_commands_run_with_closed_output() -> None:
    assert run("-m", "fer_models", "lenet", closing=">&- 2>&-").returncode == 0
    assert run("-m", "fer_models", "lenett", closing="2>&-").returncode == 2
    assert run("-m", "cluster", "doctorr", closing="2>&-").returncode == 2
