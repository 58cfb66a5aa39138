"""Runs an MLflow server for a team: with passwords, for named hosts, with proxied artifacts.

Unsafe settings are refused before anything starts, all at once.
"""

import importlib.util
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import Field

from fer_common.errors import Parser, without_password
from fer_common.flags import Flag
from fer_common.verbs import Verb, add_verbs, run_verb
from tracking.errors import TrackingError

PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
SECRET = "MLFLOW_FLASK_SERVER_SECRET_KEY"
BACKEND = "MLFLOW_BACKEND_STORE_URI"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

_LEAST_PASSWORD = 12
_KNOWN_PASSWORDS = {"password1234", "password", "admin", "administrator", "changeme"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Serve(Verb):
    """Run MLflow for a team: behind a password, for named hosts, with proxied artifacts.

    Set MLFLOW_AUTH_ADMIN_PASSWORD (of the user admin, 12 characters or more) and MLFLOW_FLASK_SERVER_SECRET_KEY (from
    openssl rand -hex 32) first. The server has no TLS: put a proxy with TLS before it.

    Example: python -m tracking serve --backend sqlite:////srv/mlflow.db --artifacts /srv/mlflow
    """

    backend: Annotated[
        str,
        Flag(f"database, as postgresql+psycopg://user@host/db; ps shows a password in it, so prefer {BACKEND}", "URI"),
    ] = Field(default_factory=lambda: os.environ.get(BACKEND, ""))
    artifacts: Annotated[str, Flag("where artifacts are stored: s3://bucket/path or an absolute folder", "PLACE")]
    host: Annotated[str, Flag("address to listen on")] = "127.0.0.1"
    port: Annotated[int, Flag("port to listen on")] = 5000
    allowed_hosts: Annotated[
        tuple[str, ...],
        Flag(
            "a host by which clients and browsers may use the server, on --port and on the default port or on PORT "
            "(repeatable)",
            "HOST[:PORT]",
            name="allowed-host",
            repeat=True,
        ),
    ] = ()
    workers: Annotated[int, Flag("number of server processes")] = 1
    dry_run: Annotated[bool, Flag("only check, and print the command")] = False

    def __call__(self) -> int:
        """Replace this process by the server, or print its command."""
        check(self, os.environ)
        if self.host not in _LOOPBACK:
            sys.stderr.write(
                f"warning: --host {self.host} without TLS: passwords cross the network unencrypted; put a proxy with "
                "TLS before it and omit --host, or use cluster/mlflow/compose.yaml\n"
            )
        if not self.dry_run:
            _become_server(self)
        words = shlex.join(command(self))
        sys.stdout.write(f"{BACKEND}={shlex.quote(without_password(self.backend))} {words}\n")
        return 0


def parser() -> Parser:
    """The command line of `python -m tracking`."""
    top = Parser(prog="python -m tracking", description="An MLflow server for a team.")
    add_verbs(top, {"serve": Serve})
    return top


def main(argv: Sequence[str]) -> int:
    """`python -m tracking VERB …`."""
    return run_verb(parser, argv, lambda line: sys.stderr.write(f"{line}\n"))


def command(served: Serve) -> list[str]:
    """The command that starts the server. The backend, which may contain a password, is passed in the environment."""
    words = [
        sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth",
        "--artifacts-destination", served.artifacts, "--serve-artifacts",
        "--host", served.host, "--port", str(served.port), "--workers", str(served.workers),
    ]  # fmt: skip
    allowed = _allowed(served)
    origins = [f"{scheme}://{host}" for host in allowed for scheme in ("http", "https")]
    return [*words, "--allowed-hosts", ",".join(allowed), "--cors-allowed-origins", ",".join(origins)]


def check(served: Serve, environment: Mapping[str, str]) -> None:
    """Refuse unsafe settings.

    Raises:
        TrackingError: every fault, one line each.
    """
    faults = [*_secret_faults(environment), *_host_faults(served)]
    if "://" not in served.backend:
        shown = without_password(f"://{served.backend}").removeprefix("://")
        faults.append(f"--backend '{shown}': expected postgresql+psycopg://user@host/db (or {BACKEND})")
    if served.backend.startswith("sqlite") and served.workers > 1:
        faults.append(
            f"--workers {served.workers} with SQLite, which allows one writer: use 1, or a postgresql+psycopg://"
        )
    if not served.artifacts.startswith(("s3://", "/")):
        faults.append(f"--artifacts '{served.artifacts}': expected s3://bucket/path or an absolute folder")
    if faults:
        raise TrackingError("this server would not be safe:" + "".join(f"\n  {fault}" for fault in faults))


def _become_server(served: Serve) -> NoReturn:
    if importlib.util.find_spec("flask_wtf") is None:
        raise TrackingError("MLflow's basic auth needs Flask-WTF, which is not installed: pip install 'mlflow[auth]'")
    words = command(served)
    os.execve(words[0], words, dict(os.environ) | _environment(served))


def _environment(served: Serve) -> dict[str, str]:
    """Foreign pickles are not loaded, the server runs no jobs of its own, and telemetry is off."""
    return {
        BACKEND: served.backend,
        "MLFLOW_AUTH_CONFIG_PATH": os.environ.get("MLFLOW_AUTH_CONFIG_PATH") or _auth_config(served.backend),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        **QUIET,
    }


def _auth_config(backend: str) -> str:
    """Settings that store the users beside the runs: by default MLflow stores them in its working folder."""
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
        faults.append(f"{PASSWORD} is not set: the administrator's password has no default")
    elif len(password) < _LEAST_PASSWORD or password.lower() in _KNOWN_PASSWORDS:
        faults.append(f"{PASSWORD} is well known or shorter than {_LEAST_PASSWORD} characters")
    if not environment.get(SECRET):
        faults.append(f"{SECRET} is not set: it signs the sessions; create one with: openssl rand -hex 32")
    return faults


def _host_faults(served: Serve) -> list[str]:
    if "*" in ",".join(served.allowed_hosts):
        return ["--allowed-host '*' allows any web page to use it: name the hosts"]
    if served.host not in _LOOPBACK and not served.allowed_hosts:
        return [f"--host {served.host} is open to other machines: name the server with --allowed-host HOST[:PORT]"]
    return []


def _allowed(served: Serve) -> list[str]:
    """The values of the Host header: clients omit the default port of http and https."""
    own = [f"{name}:{served.port}" for name in ("127.0.0.1", "localhost")]
    with_port = [f"{host}:{served.port}" for host in served.allowed_hosts if not re.search(r":\d+$", host)]
    return [*own, *served.allowed_hosts, *with_port]
