"""Access to an MLflow server: settings of its client, a first ping, its name in messages."""

import logging
import os
import ssl
import urllib.error
import urllib.request
from importlib.metadata import version
from urllib.parse import urlsplit

from fer_common.errors import without_password


def set_client_environment(timeout_seconds: int) -> None:
    """Set what mlflow's client reads at each request.

    Its own retries are turned off: they would repeat a successful create, and block for minutes.
    """
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(timeout_seconds)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow.store.db.utils", "alembic"):
        # They print tracebacks of errors that are reported here in one line, and every step of a migration.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)


def ping(uri: str, timeout_seconds: int) -> None:
    """Check that a server answers, before its client is imported, which takes seconds.

    Raises:
        OSError: it does not answer.
    """
    if not uri.startswith(("http://", "https://")):
        return
    parts = urlsplit(uri)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + "/health")
    try:
        urllib.request.urlopen(address.geturl(), timeout=timeout_seconds).close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):
            raise
        # An untrusted certificate is an answer, too; the client checks it with its own authorities.


def describe(error: Exception, uri: str) -> str:
    """What went wrong with the MLflow at `uri`, in one line without passwords."""
    cause, shown = fault_below(error), without_password(uri.rstrip("/"))
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if type(cause).__module__ == "builtins" and not isinstance(cause, OSError):
        reason = f"{type(cause).__name__}: {reason}"
    reason = without_password(reason).replace(shown, "it")
    if "mlflow db upgrade" in reason:  # a sentence about MLflow's documentation follows
        newer = f"; if a newer MLflow than {version('mlflow')} created it, install that one instead"
        return reason.partition(" NOTE:")[0].rstrip(".").replace("<database_uri>", shown) + newer
    return reason[:200]


def fault_below(error: BaseException) -> BaseException:
    """The network or disk error below the client's error, or the error itself."""
    lowest, below = error, error.__cause__ or error.__context__
    while below is not None:
        lowest = below if isinstance(below, OSError) else lowest
        below = below.__cause__ or below.__context__
    return lowest
