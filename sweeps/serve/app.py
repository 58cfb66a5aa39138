"""The web application: its pages, and the HTTP interface under /api/v1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from fer_common.faults import rule
from fer_data import DataError
from fer_models import ModelError
from sweeps.errors import InputError
from sweeps.serve import api, pages
from sweeps.serve.api import Served
from sweeps.serve.guard import BoundedBodies, Guard
from sweeps.serve.living import AllLiving
from sweeps.serve.mlflow_page import MlflowPages
from sweeps.serve.models.pool import ModelPool, return_freed_memory
from sweeps.serve.rendering import page
from sweeps.serve.search import Searches
from tracking.errors import TrackingError

_STATIC = Path(__file__).parent / "static"
_SECONDS_BETWEEN_DROPS = 10
_MOST_SHOWN = 100
"""Maximum number of characters of a wrong value that a message repeats."""


def web_app(out: Path, guard: Guard, pool: ModelPool, mlflow: MlflowPages) -> FastAPI:
    """The application for the sweeps in `out`, the nets of `pool`, and MLflow's pages of the sweeps."""

    served = Served(out, guard, pool, mlflow, AllLiving(out), Searches(out))

    @asynccontextmanager
    async def until_the_end(_: FastAPI) -> AsyncIterator[None]:
        dropping = asyncio.create_task(_drop_unused(served.living))
        yield
        dropping.cancel()
        mlflow.close()

    app = FastAPI(title="FER Sweeps", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json",
                  lifespan=until_the_end)  # fmt: skip
    app.state.served = served
    app.add_middleware(BoundedBodies)
    app.middleware("http")(guard)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    app.include_router(api.router, prefix="/api/v1")
    app.include_router(pages.router)
    for kind in (InputError, DataError, ModelError, TrackingError):
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _failed)
    return app


class Server(uvicorn.Server):
    """Serves a `web_app`; when it ends, it also ends the streams to open pages."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """End the streams, then the server as uvicorn does."""
        self.config.app.state.served.closing.set()  # type: ignore[union-attr]
        await super().shutdown(sockets)


async def _drop_unused(living: AllLiving) -> None:
    while True:
        await asyncio.sleep(_SECONDS_BETWEEN_DROPS)
        if await run_in_threadpool(living.drop_unused):
            await run_in_threadpool(return_freed_memory)


async def _failed(request: Request, error: Exception) -> Response:
    """As JSON for programs, as a page for browsers."""
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/"):
        return await http_exception_handler(request, error)
    return HTMLResponse(page("fault.html", fault=error.detail), error.status_code)


async def _refused(request: Request, error: Exception) -> Response:
    return await _failed(request, HTTPException(422, str(error)))


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """The faults of a request in one line."""
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(map(str, fault['loc'][1:2]))} {str(fault.get('input'))[:_MOST_SHOWN]}: {rule(fault)}".strip()
        for fault in error.errors()
    ]
    return JSONResponse({"detail": "; ".join(faults)}, 422)
