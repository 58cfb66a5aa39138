import base64
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tracking.errors import TrackingError
from tracking.mlflow_sync.serve import BACKEND, PASSWORD, SECRET, Serve, check, command, main

SAFE = {PASSWORD: "a long pass phrase", SECRET: "0123456789abcdef"}
SERVED = Serve(backend="postgresql+psycopg://mlflow@db/mlflow", artifacts="s3://faces/mlflow", workers=2)
PAGES = ("README.md", "docs/how-to/mlflow.md")


@pytest.mark.parametrize(
    ("environment", "change", "fault"),
    [
        ({SECRET: "x"}, {}, f"{PASSWORD} is not set"),
        ({**SAFE, PASSWORD: "password1234"}, {}, "well known"),
        ({**SAFE, PASSWORD: "short"}, {}, "shorter than 12"),
        ({PASSWORD: SAFE[PASSWORD]}, {}, f"{SECRET} is not set"),
        (SAFE, {"host": "0.0.0.0"}, r"--allowed-host HOST"),
        (SAFE, {"allowed_hosts": ("*",)}, "any web page"),
        (SAFE, {"backend": "sqlite:////srv/mlflow.db"}, "one writer"),
        (SAFE, {"backend": "mlflow.db"}, "expected postgresql"),
        (SAFE, {"backend": "ann:secret@db/mlflow"}, "--backend 'ann:…@db/mlflow'"),
        (SAFE, {"artifacts": "somewhere"}, "expected s3://"),
    ],
)
def test_what_is_not_safe_is_refused(environment: dict[str, str], change: dict[str, object], fault: str) -> None:
    check(SERVED, SAFE)
    with pytest.raises(TrackingError, match=fault):
        check(SERVED.model_copy(update=change), environment)


def test_all_faults_are_said_at_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    monkeypatch.delenv(SECRET, raising=False)
    assert main(["serve", "--backend", "sqlite:////a.db", "--artifacts", "/a", "--host", "0.0.0.0", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert all(words in said for words in (PASSWORD, SECRET, "--allowed-host"))


def test_the_command_has_no_password_in_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SAFE.items():
        monkeypatch.setenv(name, value)
    backend = "postgresql+psycopg://mlflow:geheim@db/mlflow"
    given = ["--backend", backend, "--artifacts", "s3://faces/m", "--host", "0.0.0.0", "--allowed-host", "ml.example"]
    assert main(["serve", *given, "--dry-run"]) == 0
    printed, warned = capsys.readouterr()
    assert "--app-name basic-auth" in printed
    assert warned.startswith("warning: --host 0.0.0.0 without TLS: ")
    assert "geheim" not in printed
    assert not any("mlflow@db" in word for word in command(SERVED))


@pytest.mark.parametrize(
    ("named", "port", "allowed"),
    [
        ("ml.example", "5000", ["ml.example", "ml.example:5000"]),
        ("ml.example:8443", "5000", ["ml.example:8443"]),
        ("[fd00::1]", "80", ["[fd00::1]", "[fd00::1]:80"]),
    ],
)
def test_a_named_host_is_allowed_as_clients_name_it_and_so_are_its_pages(
    named: str, port: str, allowed: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SAFE.items():
        monkeypatch.setenv(name, value)
    given = ["--backend", "sqlite:////a.db", "--artifacts", "/a", "--allowed-host", named, "--port", port]
    assert main(["serve", *given, "--dry-run"]) == 0
    printed, warned = capsys.readouterr()
    words = shlex.split(printed)
    hosts, origins = (
        words[words.index(option) + 1].split(",") for option in ("--allowed-hosts", "--cors-allowed-origins")
    )
    assert hosts == [f"127.0.0.1:{port}", f"localhost:{port}", *allowed]
    assert {f"{scheme}://{host}" for host in allowed for scheme in ("http", "https")} <= set(origins)
    assert warned == ""


@pytest.mark.parametrize(
    "text", [Serve.__doc__, *(ROOT.joinpath(page).read_text() for page in PAGES)], ids=["help", *PAGES]
)
def test_what_help_and_pages_show_is_not_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SAFE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(BACKEND, raising=False)
    shown = re.findall(r"python -m tracking (serve -[^`\n]+)", text)
    assert shown
    assert [main([*shlex.split(line), "--dry-run"]) for line in shown] == [0] * len(shown)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("flask_wtf", reason="MLflow's basic auth needs pip install 'mlflow[auth]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        sys.executable, "-m", "tracking", "serve", "--backend", f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts", str(tmp_path / "served"), "--port", str(port),
        "--allowed-host", "ml.example",
    ]  # fmt: skip
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, env={**os.environ, **SAFE}, stdout=file, stderr=file, start_new_session=True, cwd=tmp_path
        )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 200
    while status(f"{address}/health") != 200:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(log.read_text())
        time.sleep(0.5)
    yield address
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def status(
    address: str, password: str | None = None, host: str | None = None, origin: str | None = None, body: str = ""
) -> int:
    request = urllib.request.Request(address, body.encode() or None, {"Content-Type": "application/json"})
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    if host is not None:
        request.add_header("Host", host)
    if origin is not None:
        request.add_header("Origin", origin)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.slow
def test_a_real_server_asks_who_is_there(server: str, tmp_path: Path) -> None:
    address = f"{server}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert status(address) == 401
    assert status(address, "wrong pass phrase") == 401
    assert status(address, SAFE[PASSWORD]) == 200
    assert status(address, SAFE[PASSWORD], host="evil.example") == 403
    named = f"ml.example{server[server.rindex(':') :]}"
    assert status(address, SAFE[PASSWORD], host=named) == 200
    search = f"{server}/ajax-api/2.0/mlflow/runs/search"  # as MLflow's own page
    for origin, answer in ((f"http://{named}", 200), ("https://ml.example", 200), ("https://evil.example", 403)):
        assert status(search, SAFE[PASSWORD], named, origin, '{"experiment_ids": ["0"]}') == answer
    assert (tmp_path / "mlflow-users.db").exists()
