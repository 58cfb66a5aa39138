"""The MLflow UI for the records of this machine: a server for one user, and a browser on a desktop."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracking.errors import TrackingError
from tracking.mlflow_sync.default_store import sqlite_path
from tracking.mlflow_sync.serve import BACKEND, QUIET

HOST = "127.0.0.1"

_START_SECONDS = 180
_STOP_SECONDS = 10


@contextmanager
def page_server(uri: str, artifacts: Path, port: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Run MLflow's server on a local store, at HOST:port, while the block runs.

    Raises:
        TrackingError: there is no such store, the port is in use, or the server ended before it answered.
    """
    path = sqlite_path(uri)
    if path and not path.exists():
        raise TrackingError(f"MLflow's store {path} does not exist yet; python -m sweeps sync NAME creates it")
    _check_free(port)
    words = [
        sys.executable, "-m", "mlflow", "server", "--artifacts-destination", str(artifacts),
        "--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning",
    ]  # fmt: skip
    server = subprocess.Popen(words, env=dict(os.environ) | QUIET | {BACKEND: uri})
    # A signal that ends only this process would leave the server running.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        _wait_for(server, port)
        yield server
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(server)


def open_in_browser(page: str) -> bool:
    """Open an address in a browser on the desktop. False if there is no desktop."""
    has_desktop = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return has_desktop and webbrowser.open(page)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise TrackingError(f"port {port} of {HOST} cannot be used: {error}; choose another --port") from error


def _wait_for(server: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5).close()
            return
        time.sleep(0.2)
    how = f"ended with code {server.returncode}" if server.poll() is not None else "did not answer"
    raise TrackingError(f"MLflow's server {how}; its output above says why")


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
