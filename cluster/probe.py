"""Measurements on one machine. It uses only the standard library and `fer_common.versions`: Ray sends both to nodes."""

from __future__ import annotations

import base64
import configparser
import fcntl
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

from fer_common.versions import versions

PACKAGES = ("fer-sweeps", "ray", "torch", "optuna", "mlflow", "numpy", "pydantic")
_TRY_GPUS = """
import json, torch

def tried(index):
    device = torch.device("cuda", index)
    capability = torch.cuda.get_device_capability(device)
    kinds = [torch.float32] + [torch.bfloat16] * (capability >= (8, 0))
    found = {"name": torch.cuda.get_device_name(device), "capability": "%d.%d" % capability, "bf16": len(kinds) > 1}
    try:
        small = torch.arange(64 * 64, dtype=torch.float32).view(64, 64) % 7
        for kind in kinds:
            product = (small.to(device, kind) @ small.to(device, kind)).float().cpu()
            assert torch.allclose(product, small @ small, rtol=0.01), "a matrix product in %s is wrong" % kind
    except Exception as error:
        found["fault"] = str(error).strip().partition(chr(10))[0] or type(error).__name__
    return found

print(json.dumps([torch.version.cuda, [tried(index) for index in range(torch.cuda.device_count())]]))
"""
"""Multiplies matrices on each GPU, also in bf16 if the GPU supports it."""
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@dataclass(frozen=True)
class NodeFacts:
    """The facts of a machine. `gpus_seen` is None if torch could not be asked; `torch_said` is the reason.

    `gpu_kinds` names each GPU with its compute capability; `gpu_faults` names those that could not compute.
    """

    host: str
    versions: dict[str, str]
    gpus_seen: int | None
    torch_said: str
    shared_memory_bytes: int
    auth_mode: str
    gpu_kinds: tuple[str, ...] = ()
    gpu_faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. Status 0 means that there was none; `text` is then the reason."""

    status: int
    text: str


class Probe:
    """Measures on the machine on which it runs; as a Ray actor, on a node. Faults of paths are returned as text."""

    def __init__(self) -> None:
        self._held: TextIO | None = None

    def facts(self, own_devices: bool) -> dict[str, Any]:
        """The fields of NodeFacts. `own_devices` keeps CUDA_VISIBLE_DEVICES, which Ray sets in a worker."""
        gpus, said = _tried_gpus(own_devices)
        return {
            "host": socket.gethostname(),
            "versions": versions(PACKAGES),
            "gpus_seen": None if gpus is None else len(gpus),
            "gpu_kinds": tuple(_kind(gpu) for gpu in gpus or ()),
            "gpu_faults": tuple(f"{_kind(gpu)}: {gpu['fault']}" for gpu in gpus or () if "fault" in gpu),
            "torch_said": said,
            "shared_memory_bytes": _shared_memory_bytes(),
            "auth_mode": os.environ.get("RAY_AUTH_MODE", "not set"),
        }

    def clock(self) -> float:
        """Seconds since 1970, by the clock of this machine."""
        return time.time()

    def write(self, folder: str, name: str) -> str:
        """Write a small file, durably. Returns the fault, or an empty text.

        The folder is created, as a sweep would, but not its parent: without it a mount is missing.
        """
        try:
            Path(folder).mkdir(exist_ok=True)
            with (Path(folder) / name).open("w", encoding="utf-8") as file:
                file.write(name)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return f"{folder}: {error.strerror}"
        return ""

    def unread(self, folder: str, names: Iterable[str], patience_seconds: float) -> list[str]:
        """The files that cannot be read here, after waiting until NFS shows them."""
        end = time.monotonic() + patience_seconds
        missing = sorted(names)
        while True:
            missing = [name for name in missing if not _reads(Path(folder) / name, name)]
            if not missing or time.monotonic() > end:
                return missing
            time.sleep(0.5)

    def remove(self, folder: str, names: Iterable[str]) -> None:
        """Delete the files."""
        for name in names:
            (Path(folder) / name).unlink(missing_ok=True)

    def hold(self, path: str) -> str:
        """Lock a file until `release`. Returns the fault, or an empty text."""
        try:
            self._held = Path(path).open("a", encoding="utf-8")  # noqa: SIM115
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"{path}: {error.strerror}"
        return ""

    def release(self) -> None:
        """Release the lock."""
        if self._held:
            self._held.close()

    def is_held(self, path: str) -> bool:
        """Whether a lock that another machine holds is visible here."""
        with Path(path).open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def unreachable(self, targets: Iterable[tuple[str, int]], timeout_seconds: float) -> list[str]:
        """The `HOST:PORT` that accept no connection from here."""
        return [f"{host}:{port}" for host, port in targets if not accepts(host, port, timeout_seconds)]

    def tracking(self, uri: str, timeout_seconds: float) -> tuple[int, str, int]:
        """Query MLflow as its client here would: status and text of its health, status of its API with this login."""
        base, login = _split_login(uri.rstrip("/"))
        ca_file = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        health = http_get(f"{base}/health", {}, timeout_seconds, ca_file)
        query = f"{base}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        return health.status, health.text, http_get(query, login or _mlflow_login(), timeout_seconds, ca_file).status


def accepts(host: str, port: int, timeout_seconds: float) -> bool:
    """Whether a connection to the address is accepted."""
    try:
        with socket.create_connection((host, port), timeout_seconds):
            return True
    except OSError:
        return False


def speaks_grpc(host: str, port: int, timeout_seconds: float) -> bool:
    """Whether a gRPC server answers at the address, with an HTTP/2 SETTINGS frame (RFC 9113).

    With RAY_USE_TLS set, any server that listens there is accepted.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return accepts(host, port, timeout_seconds)
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(_HTTP2_PREFACE + _EMPTY_SETTINGS)
            return connection.recv(4)[3:] == _EMPTY_SETTINGS[3:4]
    except OSError:
        return False


def http_get(url: str, headers: Mapping[str, str], timeout_seconds: float, ca_file: str | None = None) -> Answer:
    """GET `url`. A status that is an error is an answer, too."""
    try:
        context = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None
    except OSError as error:
        return Answer(0, f"certificate authority {ca_file}: {error.strerror}")
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds, context=context) as reply:
            return Answer(reply.status, _head_of(reply.read(65536)))
    except urllib.error.HTTPError as error:
        return Answer(error.code, _head_of(error.read(65536)))
    except urllib.error.URLError as error:
        return Answer(0, str(error.reason))
    except (OSError, ValueError, HTTPException) as error:
        return Answer(0, str(error))


def _split_login(uri: str) -> tuple[str, dict[str, str]]:
    """The URI without its login, and the header for the login; `http.client` would read it as part of the host."""
    parts = urlsplit(uri)
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    header = _basic(unquote(user), unquote(password)) if login else {}
    return parts._replace(netloc=host).geturl(), header


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _mlflow_login() -> dict[str, str]:
    """The login from the environment, else from ~/.mlflow/credentials, as MLflow's client finds it."""
    file = configparser.RawConfigParser()
    file.read(Path("~/.mlflow/credentials").expanduser())
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    in_file = dict(file["mlflow"]) if file.has_section("mlflow") else {}
    user, password, token = (os.environ.get(name) or in_file.get(name.lower(), "") for name in names)
    if user:
        return _basic(user, password)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _head_of(body: bytes) -> str:
    return body.decode("utf-8", "replace").strip()


def _tried_gpus(own_devices: bool) -> tuple[list[dict[str, Any]] | None, str]:
    """Try the GPUs in a separate process: importing torch takes seconds, and memory that a worker would keep."""
    environment = {k: v for k, v in os.environ.items() if own_devices or k != "CUDA_VISIBLE_DEVICES"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRY_GPUS],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=180,
            env=environment,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        return None, (error.stderr.strip().splitlines() or ["no word"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    cuda, gpus = json.loads(done.stdout.strip().splitlines()[-1])
    warnings = [line for line in done.stderr.splitlines() if "CUDA" in line]
    return gpus, warnings[0].strip() if warnings else f"built for CUDA {cuda}"


def _kind(gpu: Mapping[str, Any]) -> str:
    return f"{gpu['name']} (compute capability {gpu['capability']}, {'bf16' if gpu['bf16'] else 'no bf16'})"


def _shared_memory_bytes() -> int:
    return shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0


def _reads(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == content
    except OSError:
        return False
