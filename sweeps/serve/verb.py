"""The verb `serve`: the web application over the sweeps of a folder."""

from __future__ import annotations

import argparse
import socket
import threading

from rich.text import Text

from sweeps.cli.console import console
from sweeps.errors import InputError
from sweeps.serve.guard import LOOPBACK, guard_for

TOKEN_NAME = ".serve-token"


def serve(given: argparse.Namespace) -> int:
    """Serve until Ctrl-C; nothing that happens to the server touches a sweep."""
    import uvicorn

    from sweeps.serve.app import web_app
    from sweeps.serve.mlflow_page import MlflowPages
    from sweeps.serve.model_pool import ModelPool

    if not given.out.is_dir():
        raise InputError(f"--out {given.out}: there is no such folder; run a sweep first, or name the folder of yours")
    out = given.out.resolve()
    token_file = given.token_file or out / TOKEN_NAME
    guard = guard_for(given.host, given.allow_host, token_file)
    _check_port(given.host, given.port)
    console.print(Text(f"open in a browser:\n  http://{_shown(given.host)}:{given.port}/"))
    if guard.token is not None:
        console.print(Text(f"it asks for the token in {token_file}; traffic is not encrypted: use a tunnel or a proxy"))
    console.print("Ctrl-C ends the server; the sweeps continue")
    pool = ModelPool(out, given.tracking_uri)
    threading.Thread(target=pool.warm, daemon=True).start()
    pages = MlflowPages(out, given.tracking_uri)
    uvicorn.run(web_app(out, guard, pool, pages), host=given.host, port=given.port, log_level="warning",
                access_log=False, timeout_graceful_shutdown=2, server_header=False)  # fmt: skip
    return 0


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host if host in LOOPBACK or host not in ("0.0.0.0", "::") else "HOST"


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port} of {host} cannot be used: {error}; name another with --port") from error
