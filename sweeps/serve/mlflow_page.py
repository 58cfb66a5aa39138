"""Opens a sweep in the MLflow UI: on its server, or on a server that is started for this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from sweeps.errors import InputError

_SECONDS = 120


class MlflowPages:
    """Runs `python -m sweeps ui` for each requested sweep, until `close` or the end of this process."""

    def __init__(self, out: Path, tracking_uri: str | None) -> None:
        self._words = ["--out", str(out), *(["--tracking-uri", tracking_uri] if tracking_uri else [])]
        self._running: dict[str, tuple[subprocess.Popen[str], str]] = {}
        self._lock = threading.Lock()

    def address(self, name: str) -> str:
        """The address of the sweep's page. Raises InputError with the error of the command."""
        with self._lock:
            process, page = self._running.get(name, (None, ""))
            if process is None or process.poll() is not None:
                process, page = self._start(name)
                self._running[name] = process, page
        return page

    def _start(self, name: str) -> tuple[subprocess.Popen[str], str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        # Unbuffered output, and no browser on the server's own desktop.
        environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
        environment |= {"PYTHONUNBUFFERED": "1", "COLUMNS": "1000"}
        words = [sys.executable, "-m", "sweeps.serve.beside", "ui", name, "--port", str(port), *self._words]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            env=environment,
        )  # fmt: skip
        late = threading.Timer(_SECONDS, process.terminate)
        late.start()
        assert process.stdout is not None
        assert process.stderr is not None
        page = next((line.strip() for line in process.stdout if line.strip().startswith("http")), None)
        late.cancel()
        if page is None:
            lines = process.stderr.read().strip().splitlines()
            raise InputError(lines[-1].removeprefix("error: ") if lines else "MLflow's server did not answer")
        for pipe in (process.stdout, process.stderr):
            threading.Thread(target=pipe.read, daemon=True).start()  # the pipe must not fill up
        return process, page

    def close(self) -> None:
        """End the servers."""
        for process, _ in self._running.values():
            process.terminate()
