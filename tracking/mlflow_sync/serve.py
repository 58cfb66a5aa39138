"""MLflow's server for a team: behind a password, for named hosts, with proxied artifacts.

Unsafe settings are refused before anything starts, all faults at once.
"""

import argparse
import importlib.util
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fer_common.errors import Parser, run_command
from tracking.errors import TrackingError
from tracking.mlflow_sync.uri import without_password

PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
SECRET = "MLFLOW_FLASK_SERVER_SECRET_KEY"
BACKEND = "MLFLOW_BACKEND_STORE_URI"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

_LEAST_PASSWORD = 12
_KNOWN_PASSWORDS = {"password1234", "password", "admin", "administrator", "changeme"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Served:
    """What to serve, and on which hosts. `artifacts` is a folder or `s3://bucket/path`."""

    backend: str
    artifacts: str
    host: str
    port: int
    allowed_hosts: tuple[str, ...]
    workers: int


def command(served: Served) -> list[str]:
    """The command that starts the server; the backend, which may hold a password, is passed by the environment."""
    words = [
        sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth",
        "--artifacts-destination", served.artifacts, "--serve-artifacts",
        "--host", served.host, "--port", str(served.port), "--workers", str(served.workers),
    ]  # fmt: skip
    return [*words, "--allowed-hosts", ",".join(_allowed(served))]


def check(served: Served, environment: Mapping[str, str]) -> None:
    """Refuse unsafe settings.

    Raises:
        TrackingError: every fault, one line each.
    """
    faults = [*_secret_faults(environment), *_host_faults(served)]
    if "://" not in served.backend:
        shown = without_password(f"://{served.backend}").removeprefix("://")
        faults.append(f"--backend '{shown}': expected postgresql+psycopg://user@host/db (or {BACKEND})")
    if served.backend.startswith("sqlite") and served.workers > 1:
        faults.append(f"--workers {served.workers} with SQLite: it takes one writer; use 1, or a postgresql+psycopg://")
    if not served.artifacts.startswith(("s3://", "/")):
        faults.append(f"--artifacts '{served.artifacts}': expected s3://bucket/path or an absolute folder")
    if faults:
        raise TrackingError("this server would not be safe:" + "".join(f"\n  {fault}" for fault in faults))


def main(argv: Sequence[str]) -> int:
    """`python -m tracking serve …`: becomes the server, or prints its command; 2 on bad input."""

    def act() -> int:
        given = parser().parse_args(argv)
        served = Served(
            backend=given.backend, artifacts=given.artifacts, host=given.host, port=given.port,
            allowed_hosts=tuple(given.allowed_host), workers=given.workers,
        )  # fmt: skip
        check(served, os.environ)
        if not given.dry_run:
            _become_server(served)
        words = shlex.join(command(served))
        sys.stdout.write(f"{BACKEND}={shlex.quote(without_password(served.backend))} {words}\n")
        return 0

    return run_command(argv, act, lambda line: sys.stderr.write(f"{line}\n"))


def _become_server(served: Served) -> NoReturn:
    if importlib.util.find_spec("flask_wtf") is None:
        raise TrackingError("MLflow's basic auth needs Flask-WTF, which is not installed: pip install 'mlflow[auth]'")
    words = command(served)
    os.execve(words[0], words, dict(os.environ) | _environment(served))


def _environment(served: Served) -> dict[str, str]:
    """No foreign pickles are loaded, the server runs no jobs of its own, and telemetry is off."""
    return {
        BACKEND: served.backend,
        "MLFLOW_AUTH_CONFIG_PATH": os.environ.get("MLFLOW_AUTH_CONFIG_PATH") or _auth_config(served.backend),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        **QUIET,
    }


def _auth_config(backend: str) -> str:
    """Settings that store the users beside the runs: MLflow's default is its working folder."""
    users = backend.removesuffix(".db") + "-users.db" if backend.startswith("sqlite") else backend
    path = Path(tempfile.mkdtemp(prefix="mlflow-auth-")) / "basic_auth.ini"
    path.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = {users.replace('%', '%%')}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        encoding="locale",  # in which MLflow reads it
    )
    return str(path)


def _secret_faults(environment: Mapping[str, str]) -> list[str]:
    faults = []
    password = environment.get(PASSWORD, "")
    if not password:
        faults.append(f"{PASSWORD} is not set: the administrator's password has no default here")
    elif len(password) < _LEAST_PASSWORD or password.lower() in _KNOWN_PASSWORDS:
        faults.append(f"{PASSWORD} is well known or shorter than {_LEAST_PASSWORD} characters")
    if not environment.get(SECRET):
        faults.append(f"{SECRET} is not set: it signs the sessions; openssl rand -hex 32 makes one")
    return faults


def _host_faults(served: Served) -> list[str]:
    if "*" in ",".join(served.allowed_hosts):
        return ["--allowed-host '*' lets any page of a browser in: name the hosts"]
    if served.host not in _LOOPBACK and not served.allowed_hosts:
        return [f"--host {served.host} is seen from other machines: name the server with --allowed-host HOST[:PORT]"]
    return []


def _allowed(served: Served) -> list[str]:
    own = [f"{name}:{served.port}" for name in ("127.0.0.1", "localhost")]
    return [*own, *served.allowed_hosts]


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m tracking serve`."""
    parser = Parser(prog="python -m tracking serve", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--backend", metavar="URI", default=os.environ.get(BACKEND, ""),
        help=f"postgresql+psycopg://user@host/db; a password in it is seen in ps, so better by {BACKEND}",
    )  # fmt: skip
    parser.add_argument("--artifacts", required=True, metavar="PLACE", help="s3://bucket/path or an absolute folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--allowed-host", action="append", default=[], metavar="HOST[:PORT]", help="may be repeated")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="check, print the command, start nothing")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
