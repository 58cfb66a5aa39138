"""What is shipped, what is run, and how a log is followed over cut connections."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from cluster.errors import ClusterError
from cluster.submit import Job, Jobs, _Once, _shipment, exit_code
from tests import ROOT


class Door(http.server.BaseHTTPRequestHandler):
    """A head's Jobs API, no further than authentication: the token is `right`."""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        self.send_response(404 if given == "Bearer right" else 403 if given else 401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def jobs_api() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "it requires a token"), ("wrong", "it does not take this token"), ("right", "no Jobs API there")],
)
def test_a_refused_request_is_explained_with_its_fix(
    jobs_api: str, token: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    if token:
        monkeypatch.setenv("CLUSTER_TOKEN", token)
    with pytest.raises(ClusterError, match=said):
        Jobs(ClusterConfig(address=jobs_api, token="env:CLUSTER_TOKEN" if token else None))


def test_code_is_shipped_and_nothing_else(tmp_path: Path) -> None:
    own = tmp_path / "my_space.py"
    own.write_text("SPACE = None\n")
    with _shipment([own]) as folder:
        top = {path.name for path in folder.iterdir()}
        shipped = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert (folder / "sweeps/run.py").read_bytes() == (ROOT / "sweeps/run.py").read_bytes()
        assert sum(path.stat().st_size for path in folder.rglob("*")) < 10_000_000
    assert top == {
        "sweeps",
        "fer_common",
        "fer_models",
        "fer_data",
        "tracking",
        "cluster",
        "pyproject.toml",
        "constraints.txt",
        own.name,
    }
    assert not shipped & {".csv", ".pyc", ".db", ".npy", ".npz", ".safetensors"}
    assert not folder.exists()


def test_secrets_beside_the_compose_file_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("sweeps", "fer_common", "fer_models", "fer_data", "tracking", "cluster/mlflow/secrets"):
        (tmp_path / package).mkdir(parents=True)
    (tmp_path / "cluster/mlflow/secrets/ray_auth_token").write_text("x")
    monkeypatch.setattr("cluster.submit.PROJECT", tmp_path)
    with _shipment([]) as folder:
        assert list(folder.rglob("*token*")) == []


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(ClusterError, match=r"nowhere\.py: no such file to ship"), _shipment([Path("nowhere.py")]):
        pass


def test_what_was_told_before_a_cut_is_not_told_again() -> None:
    told: list[str] = []
    log = _Once(told.append)
    for connection in (["epoch 1\n", "epo"], ["epoch 1\nepoch", " 2\n"], ["epoch 1\n", "epoch 2\n", "epoch 3\n"]):
        log.begin()
        for piece in connection:
            log.take(piece)
    assert "".join(told) == "epoch 1\nepoch 2\nepoch 3\n"


@pytest.mark.parametrize(
    ("status", "code", "exits"), [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", None, 143)]
)
def test_exit_codes(status: str, code: int | None, exits: int) -> None:
    assert exit_code(Job("n", "n", 1, status, "", "", code)) == exits


@pytest.mark.parametrize(
    ("reached_by", "options"),
    [([], "--address http://h:8265"), (["--cluster", "my file.yaml"], "--cluster 'my file.yaml'")],
)
def test_how_to_look_again(monkeypatch: pytest.MonkeyPatch, reached_by: list[str], options: str) -> None:
    monkeypatch.setattr("cluster.submit._client", lambda config: None)
    jobs = Jobs(ClusterConfig(address="http://h:8265"), reached_by)
    assert jobs.look_again("night") == f"python -m sweeps logs night {options}"
