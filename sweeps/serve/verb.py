"""The verb `serve`: the web application over the sweeps of a folder."""

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
    """One web application: watch sweeps, steer them, try a net on a face.

    Example: python -m sweeps serve --port 8000
    """

    host: Annotated[str, Flag("address to listen at (default 127.0.0.1; any other asks for a token)", "H")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Flag("default 8000", "N")] = 8000
    allow_host: Annotated[
        tuple[str, ...], Flag("a name under which browsers may address the server (repeatable)", "NAME", repeat=True)
    ] = ()
    token_file: Annotated[Path | None, Flag("default OUT/.serve-token, made if absent", "FILE")] = None

    def __call__(self) -> int:
        """Serve until Ctrl-C; nothing that happens to the server touches a sweep."""
        import uvicorn

        from sweeps.serve.app import Server, web_app
        from sweeps.serve.guard import guard_for
        from sweeps.serve.mlflow_page import MlflowPages
        from sweeps.serve.model_pool import ModelPool

        if not self.out.is_dir():
            raise InputError(
                f"--out {self.out}: there is no such folder; run a sweep first, or name the folder of yours"
            )
        out = self.out.resolve()
        token_file = self.token_file or out / TOKEN_NAME
        guard = guard_for(self.host, list(self.allow_host), token_file)
        _check_port(self.host, self.port)
        console.print(Text(f"open in a browser:\n  http://{_shown(self.host)}:{self.port}/"))
        if guard.token is not None:
            console.print(
                Text(f"it asks for the token in {token_file}; traffic is not encrypted: use a tunnel or a proxy")
            )
        console.print("Ctrl-C ends the server; the sweeps continue")
        pool = ModelPool(out, self.tracking_uri)
        threading.Thread(target=pool.warm, daemon=True).start()
        pages = MlflowPages(out, self.tracking_uri)
        config = uvicorn.Config(web_app(out, guard, pool, pages), host=self.host, port=self.port, log_level="warning",
                                access_log=False, timeout_graceful_shutdown=2, server_header=False)  # fmt: skip
        with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has ended
            Server(config).run()
        return 0


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else "HOST" if host == "0.0.0.0" else host


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port} of {host} cannot be used: {error}; name another with --port") from error
