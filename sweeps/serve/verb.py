"""The verb `serve`: the web application for the sweeps of a folder."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from rich.text import Text

from fer_common.flags import Flag
from sweeps.cli.arguments import OfSweeps
from sweeps.cli.console import console
from sweeps.errors import InputError

TOKEN_NAME = ".serve-token"


class Serve(OfSweeps):
    """Open a web application: watch and change sweeps, try a net on a face.

    Example: python -m sweeps serve --port 8000
    """

    host: Annotated[str, Flag("address to listen at (default 127.0.0.1; any other requires a token)", "H")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Flag("port (default 8000)", "N")] = 8000
    allow_host: Annotated[
        tuple[str, ...], Flag("a host name by which browsers may use the server (repeatable)", "NAME", repeat=True)
    ] = ()
    token_file: Annotated[
        Path | None, Flag("file of the token (default OUT/.serve-token, created if missing)", "FILE")
    ] = None

    def __call__(self) -> int:
        """Serve until Ctrl-C; sweeps do not depend on the server."""
        import uvicorn

        from sweeps.serve.app import Server, web_app
        from sweeps.serve.guard import guard_for
        from sweeps.serve.mlflow_page import MlflowPages
        from sweeps.serve.models.pool import ModelPool

        if not self.out.is_dir():
            raise InputError(f"--out {self.out}: no such folder; run a sweep first, or give the folder of your sweeps")
        out = self.out.resolve()
        token_file = self.token_file or out / TOKEN_NAME
        guard = guard_for(self.host, list(self.allow_host), token_file)
        _check_port(self.host, self.port)
        console.print(Text(f"open in a browser:\n  http://{_shown(self.host)}:{self.port}/"))
        if guard.token is not None:
            console.print(
                Text(f"it requires the token in {token_file}; traffic is not encrypted: use a tunnel or a proxy")
            )
        console.print("Ctrl-C ends the server; the sweeps continue")
        pool = ModelPool(out, self.tracking_uri)
        threading.Thread(target=pool.warm, daemon=True).start()
        pages = MlflowPages(out, self.tracking_uri)
        config = uvicorn.Config(web_app(out, guard, pool, pages), host=self.host, port=self.port, log_level="warning",
                                access_log=False, timeout_graceful_shutdown=2, server_header=False)  # fmt: skip
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after its end
            Server(config).run()
        return 0


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else "HOST" if host == "0.0.0.0" else host


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port} of {host} cannot be used: {error}; choose another --port") from error
