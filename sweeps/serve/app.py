"""The web application: its pages, and the same by HTTP under /api/v1."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fer_data import DataError
from fer_models import ModelError
from sweeps.cli.overview import all_sweeps
from sweeps.errors import InputError
from sweeps.serve.acts import ActRequest, act
from sweeps.serve.examples import example_png
from sweeps.serve.guard import COOKIE, Guard
from sweeps.serve.living import AllLiving, Living
from sweeps.serve.mlflow_page import MlflowPages
from sweeps.serve.model_pool import ModelPool
from sweeps.serve.search import Searches
from sweeps.use.predict import Answered, predict_photo
from tracking.errors import TrackingError
from tracking.record.layout import SweepFolder

MAX_UPLOAD = 10 * 2**20
"""Bytes of a photograph."""

_UPLOADS = 16
"""Photographs that are held in memory at a time."""
_UPLOAD_SECONDS = 60

_HERE = Path(__file__).parent
_LOOK_SECONDS = 0.4
_BEAT_SECONDS = 15
_AT_ONCE = 2
"""Photographs that are decoded at a time, since each may take 200 MB while it is."""


def web_app(out: Path, guard: Guard, pool: ModelPool, pages: MlflowPages) -> FastAPI:
    """The application over the sweeps in `out`, the nets of `pool`, and MLflow's `pages` of the sweeps."""

    @asynccontextmanager
    async def until_the_end(_: FastAPI) -> AsyncIterator[None]:
        yield
        pages.close()

    app = FastAPI(title="FER Sweeps", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json",
                  lifespan=until_the_end)  # fmt: skip
    living = AllLiving(out)
    app.middleware("http")(guard)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.include_router(_api(out, pool, living, pages), prefix="/api/v1")
    app.include_router(_pages(out, pool, living, guard), include_in_schema=False)
    for kind in (InputError, DataError, ModelError, TrackingError):
        app.add_exception_handler(kind, _refused)
    return app


def _refused(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


def _found(living: AllLiving, name: str) -> Living:
    found = living.get(name)
    if found is None:
        raise HTTPException(404, f"no sweep '{name}'")
    return found


def _api(out: Path, pool: ModelPool, living: AllLiving, pages: MlflowPages) -> APIRouter:
    api, at_once, searches = APIRouter(), asyncio.Semaphore(_AT_ONCE), Searches(out)
    uploads = asyncio.Semaphore(_UPLOADS)

    @api.get("/sweeps")
    def sweeps() -> list[dict[str, Any]]:
        """Every sweep, the living ones first."""
        return [row.model_dump(mode="json") for row in all_sweeps(out)]

    @api.get("/sweeps/{name}")
    def sweep(name: str, since: int = 0) -> JSONResponse:
        """A sweep now, and its trials that changed after version `since`, each with its curve."""
        return JSONResponse(_found(living, name).state(since))

    @api.get("/sweeps/{name}/events")
    async def events(name: str, request: Request, since: int = 0) -> StreamingResponse:
        """The same as server-sent events, whenever the journal grows."""
        return StreamingResponse(_events(_found(living, name), request, since), media_type="text/event-stream")

    @api.post("/sweeps/{name}/acts")
    async def acts(name: str, asked: ActRequest) -> dict[str, str]:
        """Stop, pause, unpause, extend, set, try, fork or retry, as the command of that name does."""
        _found(living, name)
        return {"answer": await run_in_threadpool(act, out, name, asked)}

    @api.get("/sweeps/{name}/settings")
    def settings(name: str) -> dict[str, Any]:
        """Each trial's place on the axis of each setting, and the settings' importances. Takes some seconds."""
        summary = _found(living, name).state()["summary"] or {"digest": {"trials": {}}}
        return searches.get(name, sum(n for state, n in summary["digest"]["trials"].items() if state != "running"))

    @api.post("/sweeps/{name}/mlflow")
    def mlflow(name: str) -> dict[str, str]:
        """The address of MLflow's page of the sweep. A server for a store of this machine is started if need be."""
        _found(living, name)
        return {"address": pages.address(name)}

    @api.get("/models")
    def models() -> list[str]:
        """The nets that can be tried, the default first."""
        return pool.names()

    @api.get("/models/about")
    async def about(model: str | None = None) -> dict[str, Any]:
        """What a net was trained on, and how often it is right. A net that is new here is exported first."""
        classifier = await run_in_threadpool(pool.get, model)
        return classifier.about.model_dump() | {
            "classes": classifier.classes,
            "sentence": classifier.about.sentence,
        }

    @api.post("/predict")
    async def predict(
        request: Request, model: str | None = None, whole: bool = False, looked: bool = False
    ) -> dict[str, Any]:
        """Say the expressions of the faces in a photograph, or of a picture that is one as a whole.

        The body is a PNG, JPEG or WebP of 10 MB at most. It is not kept. With `looked`, each face has a picture of
        where the net looked (Grad-CAM), as a data URI.
        """
        async with uploads:
            try:
                async with asyncio.timeout(_UPLOAD_SECONDS):
                    data = await _body(request)
            except TimeoutError:
                raise HTTPException(408, f"the file took longer than {_UPLOAD_SECONDS} s to arrive") from None
            classifier = await run_in_threadpool(pool.get, model)
            began = time.monotonic()
            async with at_once:
                answered: Answered = await run_in_threadpool(
                    partial(predict_photo, "upload", data, classifier, MAX_UPLOAD, as_whole=whole, looked=looked)
                )
        if answered.photo is None:
            raise HTTPException(422, f"this file {answered.fault}")
        content = answered.content() | {
            "width": answered.photo.width,
            "height": answered.photo.height,
            "model": classifier.about.name,
            "about": classifier.about.sentence,
            "seconds": round(time.monotonic() - began, 3),
        }
        del content["file"]
        return content

    @api.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(_template("api.html", routes=api.routes))

    return api


async def _body(request: Request) -> bytes:
    """The body, of which no more than allowed is ever taken into memory."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_UPLOAD:
            raise HTTPException(413, f"the file is too large: at most {MAX_UPLOAD // 2**20} MB")
        parts.append(part)
    return b"".join(parts)


async def _events(sweep: Living, request: Request, since: int) -> AsyncIterator[str]:
    """Until the browser goes away."""
    beat = time.monotonic()
    size = -1
    while not await request.is_disconnected():
        grown = sweep.folder.journal.stat().st_size
        if grown != size:
            size = grown
            state = await run_in_threadpool(sweep.state, since)
            if state["version"] != since:
                since = state["version"]
                beat = time.monotonic()
                yield f"data: {json.dumps(state)}\n\n"
        if time.monotonic() - beat > _BEAT_SECONDS:
            beat = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(_LOOK_SECONDS)


def _pages(out: Path, pool: ModelPool, living: AllLiving, guard: Guard) -> APIRouter:
    pages = APIRouter(default_response_class=HTMLResponse)

    @pages.get("/")
    def sweeps() -> str:
        return _template("sweeps.html", rows=all_sweeps(out), out=str(out))

    @pages.get("/sweeps/{name}")
    def sweep(name: str) -> str:
        state = _found(living, name).state()
        report = SweepFolder(living.out / name).report.is_file()
        return _template("sweep.html", name=name, state=state, has_report=report, out=str(out))

    @pages.get("/sweeps/{name}/report")
    def report(name: str) -> FileResponse:
        path = _found(living, name).folder.report
        if not path.is_file():
            raise HTTPException(404, f"no report of {name} yet: python -m sweeps report {name}")
        return FileResponse(path, headers={"Content-Security-Policy": "sandbox allow-scripts"})

    @pages.get("/try")
    def try_a_face() -> str:
        return _template("try.html", models=pool.names())

    @pages.get("/examples/{number}.png")
    def example(number: int) -> Response:
        return Response(example_png(number), media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    @pages.get("/login")
    def login() -> str:
        return _template("login.html", wrong=False)

    @pages.post("/login")
    async def logged_in(request: Request) -> Response:
        from urllib.parse import parse_qs

        given = parse_qs((await _body(request)).decode(errors="replace")).get("token", [""])[0]
        if not guard.is_token(given.strip()):
            return HTMLResponse(_template("login.html", wrong=True), 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, given.strip(), httponly=True, samesite="strict")
        return response

    return pages


_PAGES = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined)


def _template(template: str, **content: Any) -> str:
    return _PAGES.get_template(template).render(**content)
