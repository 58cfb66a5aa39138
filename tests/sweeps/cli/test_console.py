"""What is written for a person never ends the program, and files do not depend on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import ROOT

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""The locale of a terminal that knows no more than ASCII; Python would otherwise take it for UTF-8."""

PRINT = r"""
import sys
from sweeps.cli.console import console, errors, let_no_output_fail
let_no_output_fail()
for line in range(3):
    console.print(f"line {line} of 4 \u00d7 4 \u8868\u60c5")
    errors.print("warning: \u00d7")
sys.exit(7)
"""


def run(*command: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    asked: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": os.environ, "cwd": ROOT}
    return subprocess.run([sys.executable, *command], timeout=60, check=False, **asked | more)


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
