"""The tracking URI of a sweep: checked before it is used, and recorded without its password."""

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import quote, urlsplit

from fer_common.errors import without_password
from tracking.errors import TrackingError
from tracking.mlflow_sync.default_store import default_uri, sqlite_path, sqlite_uri

BESIDE_THE_SWEEPS = "default"
"""Recorded instead of the default store's URI, so that a folder of sweeps can be moved with its store."""

_EXAMPLES = "http://HOST:5000, sqlite:///FILE.db or postgresql+psycopg://USER@HOST/DATABASE"
_DATABASES = ("postgresql", "mysql", "mssql")
_HIDDEN = re.compile(r"(?<=:)…(?=@)|(?<==)…")
_HOST_AND_PORT = re.compile(r"(\S*@)?([A-Za-z0-9.-]+:\d+|localhost)(/\S*)?")


def resolve_tracking_uri(given: str | None, out: Path, recorded: str | None = None) -> str:
    """The URI to open: the given one, else that of the sweep's records, else that of the environment.

    Without any of them it is the store in the folder of the sweeps, `out`. `recorded` is what `recordable` returned
    earlier; old journals have None.

    Raises:
        TrackingError: the URI leads to no MLflow, or its password is unknown.
    """
    if given is not None:
        return _checked(given, "--tracking-uri")
    if recorded == BESIDE_THE_SWEEPS:
        return default_uri(out)
    if recorded is not None:
        return _checked(_with_password(recorded), "the sweep's tracking URI")
    in_environment = os.environ.get("MLFLOW_TRACKING_URI")
    return _checked(in_environment, "MLFLOW_TRACKING_URI") if in_environment else default_uri(out)


def recordable(uri: str, out: Path) -> str:
    """The form of a URI of `resolve_tracking_uri` that is recorded."""
    return BESIDE_THE_SWEEPS if uri == default_uri(out) else without_password(uri)


def ignored_environment(uri: str) -> str | None:
    """A note if MLFLOW_TRACKING_URI differs from `uri`, else None."""
    in_environment = os.environ.get("MLFLOW_TRACKING_URI")
    if not in_environment or _place(_absolute(in_environment)) == _place(uri):
        return None
    shown = without_password(in_environment)
    return (
        f"the sweep's records are in {without_password(uri)}, not in {shown} (MLFLOW_TRACKING_URI); "
        f"--tracking-uri {shown} sends them there"
    )


def _checked(uri: str, source: str) -> str:
    check_tracking_uri(uri, source)
    return _absolute(uri)


def _with_password(recorded: str) -> str:
    """The recorded URI with the password from the environment."""
    in_environment = os.environ.get("MLFLOW_TRACKING_URI", "")
    if _place(in_environment) == _place(recorded) and (
        without_password(in_environment) != in_environment or not _HIDDEN.search(recorded)
    ):
        return in_environment
    if not _HIDDEN.search(recorded):
        return recorded
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if not password:
        raise TrackingError(
            f"the sweep's records go to {recorded}, and its password is not recorded: set MLFLOW_TRACKING_PASSWORD "
            "(and MLFLOW_TRACKING_USERNAME for another user), or give the whole URI by MLFLOW_TRACKING_URI or "
            "--tracking-uri"
        )
    if user:
        recorded = re.sub(r"(?<=://)[^/@:]*(?=:)", lambda _: quote(user, safe=""), recorded, count=1)
    return _HIDDEN.sub(lambda _: quote(password, safe=""), recorded)


def _place(uri: str) -> str:
    """The URI without login data."""
    return re.sub(r"(?<=://)[^/?#]*@", "", _HIDDEN.sub("", without_password(uri))).rstrip("/")


def check_tracking_uri(uri: str, source: str) -> None:
    """Refuse a URI that leads to no MLflow; `source` says where it comes from. Raises TrackingError."""
    scheme, separator, _ = uri.partition("://")
    shown = without_password(uri) if separator else without_password(f"://{uri}").removeprefix("://")
    scheme = scheme.lower() if separator else ""
    kind = scheme.partition("+")[0]
    if not separator and _HOST_AND_PORT.fullmatch(uri):
        fault = f"has no scheme; did you mean http://{shown}?"
    elif not uri.strip():
        fault = f"is empty; write {_EXAMPLES}"
    elif scheme in ("", "file"):
        fault = _fault_of_folder()
    elif scheme in ("http", "https"):
        fault = _fault_of_server(uri)
    elif kind == "sqlite":
        fault = _fault_of_sqlite(uri)
    elif kind in _DATABASES:
        fault = _fault_of_database(uri)
    else:
        fault = "" if scheme in _plugins() else f"MLflow knows no {scheme}://; write {_EXAMPLES}"
    if fault:
        raise TrackingError(f"{source} '{shown}': {fault}")


def _fault_of_folder() -> str:
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
        return ""
    return f"MLflow no longer keeps its records in a folder of files; write {_EXAMPLES}"


def _fault_of_server(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        valid = bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", uri)
    except ValueError:
        valid = False
    if not valid:
        return (
            "not a server's address; write http://HOST:5000, with a login http://USER:PASSWORD@HOST:5000, in which "
            "special characters are percent-encoded (@ as %40, # as %23)"
        )
    if parts.query or parts.fragment:
        page = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        return f"the address of a page, not of the server; did you mean {page.geturl()}?"
    return ""


def _fault_of_sqlite(uri: str) -> str:
    if re.match(r"sqlite(\+\w+)?:///file:", uri):
        return ""  # SQLite's own URI
    path = sqlite_path(uri)
    if path is None:
        return "names no file; write sqlite:///FILE.db, or with an absolute path sqlite:////FOLDER/FILE.db"
    return f"is a folder; did you mean {sqlite_uri(path / 'mlflow.db')}?" if path.is_dir() else ""


def _fault_of_database(uri: str) -> str:
    """The fault if the database's driver is missing. Only this function imports SQLAlchemy."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ImportError as error:
        return f"{error}; install the driver (pip install '.[serve]' has PostgreSQL's), or name another"
    except (ArgumentError, ValueError):
        return f"not a database's address; write {_EXAMPLES}, special characters percent-encoded"
    return ""


def _plugins() -> set[str]:
    return {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}


def _absolute(uri: str) -> str:
    """The URI with an absolute path."""
    if uri.lower().startswith("sqlite") and (path := sqlite_path(uri)):
        return sqlite_uri(path.resolve()) if not path.is_absolute() else uri
    if "://" not in uri:
        return Path(uri.removeprefix("file:")).resolve().as_uri()
    return uri
