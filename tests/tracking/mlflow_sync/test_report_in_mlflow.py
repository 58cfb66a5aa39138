"""A sweep's own pictures and page among the artifacts of its MLflow run, for clients and for people."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.small_sweep import SWEEP_ID, Stored, Sweep
from tracking.figures.parts import save_png
from tracking.figures.sweep_figures import timeline_figure
from tracking.mlflow_sync.sink import MlflowSink
from tracking.record.history import SweepHistory

Sinks = Callable[[], MlflowSink]


@pytest.fixture
def artifacts(out: Path, stored: Stored) -> Callable[[], dict[str, bytes]]:
    """What lies among the artifacts of the sweep's run, by name."""

    def read() -> dict[str, bytes]:
        ((address,),) = stored.query(
            "SELECT r.artifact_uri FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            f"WHERE t.key = 'trial.key' AND t.value = '{SWEEP_ID}'"
        )
        folder = Path(str(address).removeprefix("file://"))
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return read


def draw(sweep: Sweep, page: str = "<p>first</p>") -> None:
    sweep.folder.figures.mkdir(exist_ok=True)
    save_png(timeline_figure(SweepHistory.load(sweep.folder.journal), "t"), sweep.folder.figures / "timeline.png")
    (sweep.folder.figures / "report.html").write_text(page)


def test_what_is_drawn_after_the_end_reaches_mlflow_and_stays_whatever_is_sent_again(
    sweep: Sweep, new_sink: Sinks, artifacts: Callable[[], dict[str, bytes]], stored: Stored
) -> None:
    sweep.whole()
    new_sink().sync()
    assert set(artifacts()) == {"spec.json"}, "it ended before anything was drawn"
    draw(sweep)
    new_sink().sync()
    assert artifacts() == artifacts() | {path.name: path.read_bytes() for path in sweep.folder.figures.iterdir()}
    assert set(artifacts()) == {"spec.json", "timeline.png", "report.html"}
    before = stored.runs(), stored.points()
    new_sink().sync()
    assert (stored.runs(), stored.points()) == before
    assert stored.runs()[SWEEP_ID][0] == "FINISHED"
    draw(sweep, "<p>drawn again</p>")
    new_sink().sync()
    assert artifacts()["report.html"] == b"<p>drawn again</p>"
    assert (stored.runs(), stored.points()) == before


def test_the_options_are_those_of_the_last_driver(
    sweep: Sweep, new_sink: Sinks, artifacts: Callable[[], dict[str, bytes]]
) -> None:
    sweep.whole()
    new_sink().sync()
    assert json.loads(artifacts()["spec.json"]) == {"trials": 3}
    sweep.write(sweep.driver(resumed=True).model_copy(update={"spec": {"trials": 5}}))
    sweep.finish()
    new_sink().sync()
    assert json.loads(artifacts()["spec.json"]) == {"trials": 5}


def test_pictures_outlive_the_loss_of_the_store(
    sweep: Sweep, out: Path, new_sink: Sinks, empty_store: Path, artifacts: Callable[[], dict[str, bytes]]
) -> None:
    sweep.whole()
    draw(sweep)
    new_sink().sync()
    kept = artifacts()
    (out / "mlflow.db").write_bytes(empty_store.read_bytes())
    new_sink().sync()
    assert artifacts() == kept


@pytest.fixture
def server(out: Path) -> Iterator[str]:
    """MLflow's own server and UI on the store in `out`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        str(Path(sys.executable).with_name("mlflow")), "server", "--backend-store-uri", f"sqlite:///{out}/mlflow.db",
        "--artifacts-destination", str(out / "mlartifacts"), "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    log = out / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, stdout=file, stderr=file,
            start_new_session=True, cwd=out,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 240
    while not answers(address):
        if process.poll() is not None or time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(log.read_text())
        time.sleep(0.5)
    yield address
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_person_finds_a_sweep_s_picture_in_the_mlflow_ui(
    sweep: Sweep, new_sink: Sinks, request: pytest.FixtureRequest, browser: Any
) -> None:
    sweep.whole()
    draw(sweep)
    new_sink().sync()
    page = browser.new_page(viewport={"width": 1500, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(f"{request.getfixturevalue('server')}/#/experiments")
    page.get_by_role("link", name="lenet_space").first.click()
    page.get_by_role("button", name="Got it").click()  # MLflow greets newcomers with its other trade
    page.get_by_text("Model training", exact=True).click()
    page.get_by_role("link", name="night").first.click()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("timeline.png").first.click()
    picture = page.locator("img[src^='blob:']").first
    picture.wait_for()
    page.wait_for_function("document.querySelector(\"img[src^='blob:']\").naturalWidth > 0")
    assert picture.evaluate("image => image.naturalWidth") == 1050, "10.5 inches at 100 dots"
    page.get_by_text("report.html").first.click()
    page.frame_locator("iframe").get_by_text("first").wait_for()
    page.close()
