"""Access rules: the Host and Origin of a request, the token, and what a browser may load."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sweeps.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "fer_sweeps_token"

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
    "form-action 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_SAFE = ("GET", "HEAD", "OPTIONS")

Handler = Callable[[Request], Awaitable[Response]]


MAX_UPLOAD = 10 * 2**20
"""Maximum size of a request body in bytes."""


class BoundedBodies:
    """Refuses a request whose body is larger than the maximum, before more of it is read into memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_UPLOAD:
                raise HTTPException(413, f"the file is too large: at most {MAX_UPLOAD // 2**20} MB")
            return message

        await self._app(scope, bounded, send)


@dataclass(frozen=True)
class Guard:
    """The rules: host names of the server, and the token (None if none is required)."""

    hosts: frozenset[str]
    token: str | None

    async def __call__(self, request: Request, handle: Handler) -> Response:
        """Pass a request on, or refuse it with the reason."""
        response = self._refusal(request) or await handle(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _refusal(self, request: Request) -> Response | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        name = _host_name(host)
        if name not in self.hosts:
            return _refused(
                400, f"this server is not configured for the host '{name or host}'; allow it with --allow-host"
            )
        if request.method not in _SAFE and origin and origin.partition("://")[2] != host:
            return _refused(403, f"a page of {origin} may not use this server")
        if self.token is None or request.url.path.startswith(("/static/", "/login")):
            return None
        if self._knows_the_token(request):
            return None
        if request.url.path.startswith("/api/"):
            wrong = "that is not the token; " if "authorization" in request.headers else ""
            return _refused(401, f"{wrong}give the token: Authorization: Bearer TOKEN")
        return RedirectResponse("/login", 303)

    def _knows_the_token(self, request: Request) -> bool:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        return self.is_token(bearer if scheme.lower() == "bearer" else request.cookies.get(COOKIE, ""))

    def is_token(self, given: str) -> bool:
        """Compare in constant time."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


def guard_for(host: str, allowed: list[str], token_file: Path) -> Guard:
    """The rules for a server at `host`: a token if it can be reached from other machines.

    Raises:
        InputError: the token's file can be read by others, or is empty.
    """
    names = frozenset({name.lower() for name in (*LOOPBACK, *allowed, host)} - {"0.0.0.0", "::"})
    return Guard(names, None if host in LOOPBACK else _token(token_file))


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # for example a bracket that is not closed
        return None


def _token(path: Path) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise InputError(f"{path}: other users can read the token; protect it: chmod 600 {path}") from None
        token = path.read_text(encoding="utf-8").strip()
        if not token:
            raise InputError(f"{path}: is empty; write a token into it, or delete it to get a new one") from None
        return token
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{token}\n")
    return token


def _refused(status: int, why: str) -> JSONResponse:
    return JSONResponse({"detail": why}, status)
