"""`python -m tracking serve` as a team runs it: PostgreSQL, an S3 store, passwords; all on loopback, all real."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.ports import free_port
from tracking.mlflow_sync.serve import BACKEND, PASSWORD, SECRET

pytestmark = pytest.mark.slow

ADMIN = "a long pass phrase"
DATABASE_PASSWORD = "another pass phrase"
BUCKET = "mlflow-artifacts"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def postgres_program(name: str) -> str:
    """Debian keeps the server's programs out of PATH."""
    places = sorted(str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"no {name} here: apt-get install postgresql")
    return found


def unprivileged() -> str | None:
    """PostgreSQL refuses to run as root: who it runs as then."""
    if os.geteuid() != 0:
        return None
    for user in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(user).pw_name
        except KeyError:
            continue
    return pytest.skip("PostgreSQL refuses to run as root, and there is no other user here")


@contextmanager
def running(words: list[str], log: Path, address: str, **more: object) -> Iterator[None]:
    """A server for the length of the block, once `address` answers."""
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True, **more)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 300
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(log.read_text())
            time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    if not address.startswith("http"):
        host, _, port = address.partition(":")
        with socket.socket() as knock:
            return knock.connect_ex((host, int(port))) == 0
    return status(address) is not None


def status(address: str, **headers: str) -> int | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of an empty PostgreSQL database that asks for a password."""
    initdb, postgres = postgres_program("initdb"), postgres_program("postgres")
    user, root = unprivileged(), Path(f"/tmp/postgres-{os.getpid()}")
    root.mkdir(mode=0o700)
    try:
        if user is not None:
            shutil.chown(root, user)
        secret = root / "password"
        secret.write_text(DATABASE_PASSWORD)
        secret.chmod(0o644)
        data, port = root / "data", free_port()
        made = [initdb, "-D", str(data), "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, user=user, cwd=root)
        words = [postgres, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(root), "-F"]
        with running(words, tmp_path_factory.mktemp("postgres") / "log", f"127.0.0.1:{port}", user=user, cwd=root):
            yield f"postgresql+psycopg://mlflow:{DATABASE_PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3 store with an empty bucket."""
    pytest.importorskip("moto", reason="the S3 store of this test needs pip install 'moto[server]'")
    boto3 = pytest.importorskip("boto3", reason="MLflow's S3 needs the extra serve")
    address = f"http://127.0.0.1:{(port := free_port())}"
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(words, tmp_path_factory.mktemp("s3") / "log", address):
        keys = (S3_KEYS["AWS_ACCESS_KEY_ID"], S3_KEYS["AWS_SECRET_ACCESS_KEY"])
        boto3.client("s3", "us-east-1", None, True, None, address, *keys).create_bucket(Bucket=BUCKET)
        yield address


@dataclass(frozen=True)
class Team:
    """A team's server, and the S3 store behind it."""

    address: str
    s3: str
    log: Path


@pytest.fixture(scope="module")
def team(database: str, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    pytest.importorskip("flask_wtf", reason="MLflow's basic auth needs the extra serve")
    pytest.importorskip("psycopg", reason="PostgreSQL needs the extra serve")
    folder = tmp_path_factory.mktemp("server")
    address = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        **os.environ, **S3_KEYS, "MLFLOW_S3_ENDPOINT_URL": s3, BACKEND: database, PASSWORD: ADMIN,
        SECRET: "0123456789abcdef0123456789abcdef",
    }  # fmt: skip
    words = [sys.executable, "-m", "tracking", "serve", "--artifacts", f"s3://{BUCKET}/runs", "--port", str(port),
             "--allowed-host", "ml.example:5000"]  # fmt: skip
    with running(words, folder / "log", f"{address}/health", cwd=folder, env=environment):
        yield Team(address, s3, folder / "log")


@pytest.fixture
def login(team: Team, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A person of the team, without any key of the S3 store."""
    for name in (*S3_KEYS, "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowClient(team.address)


def test_a_run_and_its_file_come_back(login: MlflowClient, team: Team, tmp_path: Path) -> None:
    experiment = login.create_experiment("lenet_space")
    run = login.create_run(experiment, run_name="0000 lenet").info.run_id
    login.log_metric(run, "val_accuracy", 0.625, step=3)
    (tmp_path / "curves.png").write_bytes(b"picture")
    login.log_artifact(run, str(tmp_path / "curves.png"))
    login.set_terminated(run)
    found = login.get_run(run)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"val_accuracy": 0.625})
    assert found.info.artifact_uri.startswith("mlflow-artifacts:")
    assert Path(login.download_artifacts(run, "curves.png")).read_bytes() == b"picture"
    boto3 = pytest.importorskip("boto3")
    store = boto3.client("s3", "us-east-1", None, True, None, team.s3, *list(S3_KEYS.values())[:2])
    names = [one["Key"] for one in store.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert [name for name in names if name.startswith("runs/") and name.endswith(f"{run}/artifacts/curves.png")]


@pytest.mark.parametrize(("user", "password"), [("admin", "wrong"), ("admin", "password1234"), ("nobody", ADMIN)])
def test_a_wrong_password_is_refused(
    login: MlflowClient, monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with pytest.raises(MlflowException, match="not authenticated"):
        login.search_experiments()


def test_only_named_hosts_are_served_and_no_stranger(team: Team) -> None:
    address = f"{team.address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert status(address) == 401
    assert status(address, Host="ml.example:5000") == 401
    assert status(address, Host="evil.example") == 403
    assert status(f"{team.address}/api/2.0/mlflow-artifacts/artifacts?path=runs") == 401


def test_no_secret_is_in_the_log_nor_in_the_command(team: Team, database: str) -> None:
    said = team.log.read_text()
    commands = [path.read_bytes().decode(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert any("mlflow" in words and BUCKET in words for words in commands)
    for secret in (ADMIN, DATABASE_PASSWORD, database):
        assert secret not in said
        assert not [words for words in commands if secret in words and "postgres\0" not in words]
