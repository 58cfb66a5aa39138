"""A real `mlflow server` on loopback, killed and started again under the sink."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate, certificate, needs_openssl
from tests.tracking.small_sweep import Stored, Sweep
from tracking.errors import TrackingError
from tracking.mlflow_sync.default_store import default_path, default_uri
from tracking.mlflow_sync.sink import MlflowSink


class Server:
    """One that is reached by http, or by https where it has a certificate."""

    def __init__(self, out: Path, tls: Certificate | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"{'https' if tls else 'http'}://127.0.0.1:{self._port}"
        self._tls = tls
        self._trusted = ssl.create_default_context(cafile=tls.authority) if tls else None
        self._out = out
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", default_uri(self._out),
            "--artifacts-destination", str(self._out / "served"), "--port", str(self._port), "--workers", "1",
        ]  # fmt: skip
        if self._tls:
            files = f"--ssl-certfile={self._tls.certificate} --ssl-keyfile={self._tls.key}"
            command += ["--uvicorn-opts", files]  # as `cluster/mlflow/serve.sh` does
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._out / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=self._out
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.uri + "/health", timeout=2, context=self._trusted).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        pytest.fail((self._out / "server.log").read_text())

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(out: Path) -> Iterator[Server]:
    server = Server(out)
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_killed_and_started_again_holds_everything_once(server: Server, out: Path, sweep: Sweep) -> None:
    folder = sweep.folder.trial(0).create()
    folder.curves.write_bytes(b"picture")
    warnings: list[str] = []
    server.start()
    sweep.start()
    sink = MlflowSink(sweep.folder.journal, tracking_uri=server.uri, out=out, on_warning=warnings.append)
    sink.start()
    for number in range(6):
        sweep.trial(number)
        sink.wake()
        for epoch in (1, 2, 3):
            sweep.epoch(number, epoch)
            sink.wake()
            time.sleep(0.4)
            if (number, epoch) == (1, 2):
                server.kill()
            if (number, epoch) == (3, 1):
                server.start()
        sweep.end(number)
    sweep.finish()
    sink.wake()
    assert sink.close(lambda: 60) == 0
    assert len(warnings) == 1
    assert "does not accept results" in warnings[0]
    stored = Stored(default_path(out))
    assert stored.points() == sweep.points
    assert [run[0] for run in stored.runs().values()] == ["FINISHED"] * 7
    assert [path.read_bytes() for path in (out / "served").rglob("curves.png")] == [b"picture"]
    MlflowSink(sweep.folder.journal, tracking_uri=server.uri, out=out, on_warning=warnings.append).sync()
    assert stored.points() == sweep.points
    assert len(stored.runs()) == 7


@pytest.mark.slow
def test_a_server_gone_for_good_leaves_a_backlog_that_sync_sends(server: Server, out: Path, sweep: Sweep) -> None:
    server.start()
    sweep.start()
    sink = MlflowSink(sweep.folder.journal, tracking_uri=server.uri, out=out, on_warning=lambda _: None)
    sink.start()
    time.sleep(4)
    server.kill()
    sweep.trial(0)
    sweep.epoch(0, 1)
    sink.wake()
    begin = time.monotonic()
    assert sink.close(lambda: 60) == 3
    assert time.monotonic() - begin < 6
    server.start()
    MlflowSink(sweep.folder.journal, tracking_uri=server.uri, out=out, on_warning=pytest.fail).sync()
    assert Stored(default_path(out)).points() == sweep.points


@pytest.mark.slow
@needs_openssl
def test_a_server_behind_tls_takes_all_from_who_trusts_its_certificate(
    out: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificate(out / "tls", "127.0.0.1")
    sweep.whole()
    server = Server(out, made)
    server.start()
    try:
        sink = MlflowSink(sweep.folder.journal, tracking_uri=server.uri, out=out, on_warning=pytest.fail)
        with pytest.raises(TrackingError, match="certificate verify failed"):
            sink.sync()
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(made.authority))
        sink.sync()
    finally:
        server.kill()
    assert Stored(default_path(out)).points() == sweep.points
