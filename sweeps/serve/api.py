"""The HTTP interface under /api/v1 for pages and programs: sweeps, trials, curves, acts, models, predictions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from fer_data.photos.mtcnn_nets import release_memory
from sweeps.cli.overview import all_sweeps
from sweeps.errors import did_you_mean
from sweeps.runs import sweep_names
from sweeps.serve.acts import ActRequest, act
from sweeps.serve.guard import MAX_UPLOAD, Guard
from sweeps.serve.living import AllLiving, Living
from sweeps.serve.mlflow_page import MlflowPages
from sweeps.serve.models.pool import ModelPool, return_freed_memory
from sweeps.serve.rendering import page
from sweeps.serve.search import Searches, Version
from sweeps.use.classifier import OnnxClassifier
from sweeps.use.predict import Answered, predict_photo
from tracking.errors import TrackingError

_UPLOADS = 16
"""Maximum number of photographs in memory at once."""
_UPLOAD_SECONDS = 60
_LOOK_SECONDS = 0.4
_BEAT_SECONDS = 15
_AT_ONCE = 2
"""Maximum number of photographs that are decoded at once, since each may take 200 MB."""
_SLOW_AT_ONCE = 16
"""Maximum number of requests at once that wait for a process or an export; pages have other threads."""


@dataclass(frozen=True)
class Served:
    """What the application serves: the sweeps in `out`, the nets of `pool`, and MLflow's pages of the sweeps."""

    out: Path
    guard: Guard
    pool: ModelPool
    mlflow: MlflowPages
    living: AllLiving
    searches: Searches
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_UPLOADS))
    decoding: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    slow: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_SLOW_AT_ONCE))
    closing: asyncio.Event = field(default_factory=asyncio.Event)


def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


Serving = Annotated[Served, Depends(_served)]


def _found(name: str, served: Serving) -> Living:
    found = served.living.get(name)
    if found is None:
        raise HTTPException(404, f"no sweep '{name}'{did_you_mean(name, sweep_names(served.out))}")
    return found


Found = Annotated[Living, Depends(_found)]

router = APIRouter()


@router.get("/sweeps")
def sweeps(served: Serving) -> list[dict[str, Any]]:
    """Every sweep, running ones first."""
    return [row.model_dump(mode="json") for row in all_sweeps(served.out)]


@router.get("/sweeps/{name}")
def sweep(found: Found, since: int = 0) -> JSONResponse:
    """The state of a sweep, and its trials that changed after version `since`, each with its curve.

    If only the rank or the forecast of a trial changed, only its number, reason and forecast are given.
    """
    return JSONResponse(found.state(since))


@router.get("/sweeps/{name}/events")
async def events(found: Found, request: Request, served: Serving, since: int = 0) -> StreamingResponse:
    """The same as server-sent events, whenever something changes."""
    return StreamingResponse(_events(found, request, served.closing, since), media_type="text/event-stream")


@router.post("/sweeps/{name}/acts", dependencies=[Depends(_found)])
async def acts(name: str, asked: ActRequest, served: Serving) -> dict[str, str]:
    """Stop, pause, unpause, extend, set, try, fork or retry, as the command of that name does."""
    return {"answer": await to_thread.run_sync(act, served.out, name, asked, limiter=served.slow)}


@router.get("/sweeps/{name}/settings")
async def settings(name: str, found: Found, served: Serving) -> dict[str, Any]:
    """The position of each trial on the axis of each setting, and the settings' importances. Takes some seconds."""
    version = Version(*await run_in_threadpool(found.read_so_far))
    return await to_thread.run_sync(served.searches.get, name, version, limiter=served.slow)


@router.post("/sweeps/{name}/mlflow", dependencies=[Depends(_found)])
async def mlflow(name: str, served: Serving) -> dict[str, str]:
    """The address of the sweep in the MLflow UI. If its store is a file, a server is started."""
    return {"address": await to_thread.run_sync(served.mlflow.address, name, limiter=served.slow)}


@router.get("/models")
def models(served: Serving) -> list[str]:
    """The nets that can be tried, the default first."""
    return served.pool.names()


@router.get("/models/about")
async def about(served: Serving, model: str | None = None) -> dict[str, Any]:
    """The data that a net was trained on, and its accuracy. A new net is first exported."""
    classifier = await to_thread.run_sync(served.pool.get, model, limiter=served.slow)
    return classifier.about.model_dump() | {"classes": classifier.classes, "sentence": classifier.about.sentence}


@router.post("/predict")
async def predict(
    request: Request, served: Serving, model: str | None = None, whole: bool = False, looked: bool = False
) -> dict[str, Any]:
    """Classify the expressions of the faces in a photograph, or of a picture that is one face (`whole`).

    The body is a PNG, JPEG or WebP of at most 10 MB. It is not stored. With `looked`, each face has a picture of its
    Grad-CAM as a data URI.
    """
    async with served.uploads:
        try:
            async with asyncio.timeout(_UPLOAD_SECONDS):
                data = await request.body()
        except TimeoutError:
            raise HTTPException(408, f"the file took longer than {_UPLOAD_SECONDS} s to arrive") from None
        classifier = await to_thread.run_sync(served.pool.get, model, limiter=served.slow)
        began = time.monotonic()
        async with served.decoding:
            answered = await run_in_threadpool(partial(_predicted, data, classifier, whole, looked))
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


@router.get("/docs", include_in_schema=False)
def docs() -> HTMLResponse:
    """The routes above, as a page."""
    return HTMLResponse(page("api.html", routes=router.routes))


def _predicted(data: bytes, classifier: OnnxClassifier, whole: bool, looked: bool) -> Answered:
    try:
        return predict_photo("upload", data, classifier, MAX_UPLOAD, as_whole=whole, looked=looked)
    finally:
        release_memory()
        return_freed_memory()


async def _events(sweep: Living, request: Request, closing: asyncio.Event, since: int) -> AsyncIterator[str]:
    """Yield events until the browser disconnects, or the server ends."""

    def news() -> tuple[int, str]:
        state = sweep.state(since)
        return state["version"], json.dumps(state) if state["version"] != since else ""

    beat = time.monotonic()
    while not closing.is_set() and not await request.is_disconnected():
        try:
            since, state = await run_in_threadpool(news)
        except (TrackingError, OSError) as error:  # its journal is damaged or gone
            gone = f"no sweep '{sweep.folder.root.name}' any more: its folder was deleted or renamed"
            fault = gone if isinstance(error, FileNotFoundError) else str(error)
            yield f"event: fault\ndata: {json.dumps(fault)}\n\n"
            return
        if state:
            beat = time.monotonic()
            yield f"data: {state}\n\n"
        if time.monotonic() - beat > _BEAT_SECONDS:
            beat = time.monotonic()
            yield ": still here\n\n"
        with suppress(TimeoutError):
            await asyncio.wait_for(closing.wait(), _LOOK_SECONDS)
