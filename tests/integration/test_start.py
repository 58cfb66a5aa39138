"""What keeps a sweep from starting: one line, exit 2, nothing written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests import ROOT

pytestmark = pytest.mark.timeout(120)


def refusal(out: Path, *more: str, run: tuple[str, ...] = (sys.executable,), **environment: str) -> str:
    """The one line on stderr of a sweep into `out` that must not start."""
    command = [*run, "-m", "sweeps.run", "lenet_space", "--limit-train", "350", "--out", str(out), "--name", "a", *more]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, env=os.environ | environment
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert not out.exists(), "nothing is written"
    return line.removeprefix("error: ")


@pytest.mark.long
@pytest.mark.parametrize("listens", [False, True], ids=["nobody", "not Ray"])
def test_an_address_where_no_ray_answers(tmp_path: Path, listens: bool) -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        if listens:
            server.listen()
        port = server.getsockname()[1]
        began = time.monotonic()
        line = refusal(tmp_path / "runs", "--address", f"127.0.0.1:{port}", HOME=str(tmp_path))
    assert line.startswith(f"Ray at 127.0.0.1:{port}: no Ray answers at ")
    assert "from elsewhere submit: --address http://HEAD:8265 --out DIR" in line
    assert time.monotonic() - began < 60, "ray.init waits for minutes"


@pytest.mark.long
@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_deep_for_rays_sockets(tmp_path: Path, name: str) -> None:
    with tempfile.TemporaryDirectory() as short:
        deep = Path(short) / ("a" * 90)
        deep.mkdir()
        line = refusal(tmp_path / "runs", **{name: str(deep)})
    assert line.startswith("Ray does not start on this machine: validate_socket_filename failed: AF_UNIX path length")
    assert f"{name}={deep} is where it keeps its sockets, try a short path" in line
    assert line.endswith("without Ray: --runner inline")


@pytest.mark.long
def test_a_folder_of_ray_that_is_not_there(tmp_path: Path) -> None:
    line = refusal(tmp_path / "runs", RAY_TMPDIR="/proc/nowhere")
    assert line.startswith("Ray does not start on this machine: [Errno 2] No such file or directory: '/proc/nowhere'")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming a user without an entry needs root")
def test_a_user_without_an_entry_and_a_home(tmp_path: Path) -> None:
    able = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # to read this Python, wherever it is
    as_nobody = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *able, "env", "-u", "HOME")
    if subprocess.run([*as_nobody, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let tests become another user")
    line = refusal(tmp_path / "runs", run=(*as_nobody, sys.executable))
    assert line == "user id 12345 has no home folder and HOME is not set: set HOME to a folder, as HOME=/tmp"


def test_an_out_that_the_file_system_refuses(tmp_path: Path) -> None:
    name = "a" * 300
    done = subprocess.run(
        [sys.executable, "-m", "sweeps", "status", "night", "--out", str(tmp_path / name)],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path / name}/night")
    assert done.stderr.endswith(": File name too long\n")
