"""The pages of the web application."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from sweeps.cli.overview import all_sweeps
from sweeps.runs import command_for
from sweeps.serve.api import Found, Serving
from sweeps.serve.guard import COOKIE
from sweeps.serve.models.examples import example_png
from sweeps.serve.rendering import page

router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)


@router.get("/")
def sweeps(served: Serving) -> str:
    """All sweeps."""
    return page("sweeps.html", rows=all_sweeps(served.out), out=str(served.out))


@router.get("/sweeps/{name}")
def sweep(name: str, found: Found, served: Serving) -> str:
    """The page of a sweep, which updates itself in the browser."""
    return page("sweep.html", name=name, started=found.started(), has_report=found.folder.report.is_file(),
                out=str(served.out), resume=command_for(served.out, "resume", name),
                unpause=command_for(served.out, "unpause", name))  # fmt: skip


@router.get("/sweeps/{name}/report")
def report(name: str, found: Found, served: Serving) -> FileResponse:
    """The report of a sweep."""
    path = found.folder.report
    if not path.is_file():
        raise HTTPException(404, f"no report of {name} yet: {command_for(served.out, 'report', name)}")
    return FileResponse(path, headers={"Content-Security-Policy": "sandbox allow-scripts"})


@router.get("/try")
def try_a_face(served: Serving) -> str:
    """The page to try a net on a photograph."""
    return page("try.html", models=served.pool.names())


@router.get("/examples/{number}.png")
def example(number: int) -> Response:
    """A synthetic face to try."""
    return Response(example_png(number), media_type="image/png", headers={"Cache-Control": "max-age=3600"})


@router.get("/login")
def login() -> str:
    """The page where a browser sends the token."""
    return page("login.html", wrong=False)


@router.post("/login")
async def logged_in(request: Request, served: Serving) -> Response:
    """Store the token in the browser, if it is valid."""
    given = parse_qs((await request.body()).decode(errors="replace")).get("token", [""])[0].strip()
    if not served.guard.is_token(given):
        return HTMLResponse(page("login.html", wrong=True), 401)
    response = RedirectResponse("/", 303)
    response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
    return response
