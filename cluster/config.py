"""The file of `--cluster FILE`: the cluster's address, the folder of its sweeps, and its token.

It is the file that starts the cluster (`ray up FILE`), or any YAML. Only `metadata.fer_sweeps` is read, which Ray and
Kubernetes leave to the user.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from cluster.errors import ClusterError
from fer_common.errors import did_you_mean, without_password
from fer_common.faults import rule
from fer_common.frozen import Finite

_BLOCK = "metadata.fer_sweeps"
_OWN_FILE = Path("~/.ray/auth_token")


class ClusterConfig(Finite):
    """How a cluster is reached. Paths are paths on the cluster's machines, except `ca_file` and the token's."""

    address: str
    """`http(s)://HOST:8265`, Ray's Jobs API as this machine reaches it; or `auto` or `HOST:6379`, to join the cluster.
    """
    storage: str | None = None
    """Folder of all sweeps, mounted at the same path on every node. It must support appending, locks and renaming."""
    tracking_uri: str | None = None
    """MLflow's URI as the nodes reach it, without a password."""
    data: str | None = None
    """Default for --data."""
    token: str | None = None
    """`file:PATH` or `env:NAME` on this machine; by default RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray."""
    ca_file: Path | None = None
    """Certificate authority of an https address, if the system does not trust it."""
    gpus: int | None = Field(default=None, ge=0)
    """GPUs with all autoscaled workers running: the number that a sweep may use before any of them has started."""
    cpus: int | None = Field(default=None, ge=0)
    """Cores with all autoscaled workers running."""

    @property
    def submits(self) -> bool:
        """Whether sweeps are submitted as jobs (http) instead of being driven from here."""
        return self.address.startswith("http")

    @field_validator("address")
    @classmethod
    def _address_is_one(cls, address: str) -> str:
        return check_address(address)

    @field_validator("storage")
    @classmethod
    def _storage_is_a_folder(cls, storage: str | None) -> str | None:
        if storage is not None and not storage.startswith("/"):
            raise ValueError(
                f"'{storage}' is not an absolute path; a sweep's journal needs appending and locks, which object "
                "stores lack: mount NFS (EFS, Filestore) at the same path on every node, and keep MLflow's artifacts "
                "in the bucket"
            )
        return storage

    @field_validator("tracking_uri")
    @classmethod
    def _uri_has_no_password(cls, uri: str | None) -> str | None:
        if uri is not None and without_password(uri) != uri:
            raise ValueError(
                "holds a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the nodes instead"
            )
        return uri

    @field_validator("token")
    @classmethod
    def _token_is_a_source(cls, token: str | None) -> str | None:
        if token is not None and not re.fullmatch(r"(file|env):.+", token):
            raise ValueError("names no source; write file:PATH or env:NAME, never the token itself")
        return token


def check_address(address: str) -> str:
    """`address` without a trailing slash, if it can be joined or submitted to. Raises ValueError."""
    address = address.rstrip("/")
    if address.startswith("ray://"):
        host = address.removeprefix("ray://").partition(":")[0]
        raise ValueError(
            f"{address}: Ray Client keeps the sweep's driver on this machine and ends it with the connection; "
            f"submit it instead: http://{host}:8265"
        )
    if address in ("local", "auto") or re.fullmatch(r"(https?://)?[A-Za-z0-9._-]+(:\d{1,5})(/\S*)?", address):
        return address
    if re.fullmatch(r"https://[A-Za-z0-9._-]+(/\S*)?", address):
        return address
    raise ValueError(f"'{address}' is not an address; write auto, HOST:6379 or http://HOST:8265")


def load_cluster_config(path: Path) -> ClusterConfig:
    """Read `metadata.fer_sweeps` of a YAML file.

    Raises:
        ClusterError: there is no such file, it is not YAML or has no such block; or lists all faults of the block.
    """
    block = _block(path)
    if unknown := [name for name in block if name not in ClusterConfig.model_fields]:
        said = "\n  ".join(f"'{name}'{did_you_mean(str(name), ClusterConfig.model_fields)}" for name in unknown)
        raise ClusterError(f"{path}: {_BLOCK}: unknown keys\n  {said}")
    try:
        return ClusterConfig.model_validate(block)
    except ValidationError as error:
        raise ClusterError(f"{path}: {_BLOCK}: {_explained(error)}") from None


def check_home() -> None:
    """Raise ClusterError if this user has no home folder: Ray, MLflow and Matplotlib look for files in it."""
    try:
        Path.home()
    except RuntimeError:
        raise ClusterError(
            f"user id {os.getuid()} has no home folder and HOME is not set: set HOME to a folder, as HOME=/tmp"
        ) from None


def reach(cluster: Path | None, address: str | None) -> ClusterConfig | None:
    """The configuration of `--cluster FILE` and `--address A`; the address takes precedence. None without both.

    Raises:
        ClusterError: the file or the address is not valid.
    """
    config = load_cluster_config(cluster) if cluster else None
    if address is None:
        return config
    try:
        address = check_address(address)
    except ValueError as error:
        raise ClusterError(f"--address {error}") from None
    if address == "local":
        return None
    return config.model_copy(update={"address": address}) if config else ClusterConfig(address=address)


def find_token(source: str | None = None) -> str | None:
    """The cluster's token from `file:PATH` or `env:NAME`; without a source from where Ray looks, or None.

    Raises:
        ClusterError: the source has no token, or is a file that other users can read.
    """
    if source is None:
        return _token_where_ray_looks()
    kind, _, place = source.partition(":")
    token = os.environ.get(place, "").strip() if kind == "env" else _token_in(Path(place).expanduser())
    if not token:
        raise ClusterError(
            f"token {source}: nothing there; fetch the cluster's token; see the comments at the top of its file"
        )
    return token


def _token_where_ray_looks() -> str | None:
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else _OWN_FILE.expanduser()
    return _token_in(path) if given or path.exists() else None


def _token_in(path: Path) -> str:
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise ClusterError(f"token file {path}: mode {mode:o} lets others read it; chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ClusterError(f"token file {path}: {error.strerror}; fetch it from the head, with mode 600") from None


def _block(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ClusterError(f"{path}: {reason}; cluster files are in cluster/, as cluster/on_prem.yaml") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ClusterError(f"{path}{line}: not one YAML document: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ClusterError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    metadata = document.get("metadata") if isinstance(document, dict) else None
    block = metadata.get("fer_sweeps") if isinstance(metadata, dict) else None
    if not isinstance(block, dict):
        has = f" (it has {', '.join(map(str, metadata))})" if isinstance(metadata, dict) else ""
        raise ClusterError(
            f"{path}: no {_BLOCK}, which says how to reach the cluster{has}; add at least\n"
            "  metadata:\n    fer_sweeps:\n      address: http://127.0.0.1:8265"
        )
    return block


def _explained(error: ValidationError) -> str:
    faults = [f"{'.'.join(map(str, fault['loc']))}: {rule(fault)}" for fault in error.errors()]
    return faults[0] if len(faults) == 1 else "".join(f"\n  {fault}" for fault in faults)
