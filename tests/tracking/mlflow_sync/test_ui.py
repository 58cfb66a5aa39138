"""MLflow's page on the runs of this machine: where it is, what a newcomer finds there, and what it tells nobody."""

import os
import signal
import socket
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.tracking.small_sweep import Sweep
from tracking.errors import TrackingError
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.experiment import experiment_page
from tracking.mlflow_sync.sink import MlflowSink
from tracking.mlflow_sync.ui import HOST, open_in_browser, page_server
from tracking.record.history import SweepHistory

NewSink = Callable[[], MlflowSink]


def test_a_port_that_is_taken_is_named_before_anything_starts(out: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(TrackingError, match=rf"port {port} of 127\.0\.0\.1 cannot be used: .*another --port"),
            page_server(default_uri(out), out, port),
        ):
            pass


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with (
        pytest.raises(TrackingError, match=r"MLflow's store .*mlflow\.db does not exist yet"),
        page_server(default_uri(tmp_path), tmp_path, free_port()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("display", "opened"), [("", []), (":0", ["http://page"])])
def test_a_browser_opens_only_where_there_is_a_desktop(
    monkeypatch: pytest.MonkeyPatch, display: str, opened: list[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda page: asked.append(page) or True)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert open_in_browser("http://page") is bool(opened)
    assert asked == opened


@pytest.fixture
def server(sweep: Sweep, out: Path, new_sink: NewSink) -> Iterator[str]:
    """The page on a finished sweep of three trials."""
    sweep.whole()
    new_sink().sync()
    port = free_port()
    with page_server(default_uri(out), out / "mlartifacts", port):
        yield f"http://{HOST}:{port}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_experiment_opens_for_training_with_its_trials_ranked_and_its_charts_filled(
    server: str, sweep: Sweep, browser: Any
) -> None:
    address = experiment_page(server, SweepHistory.load(sweep.folder.journal).started)
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(120_000)
    elsewhere: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith((server, "data:", "blob:")):
            elsewhere.append(request.url)

    page.on("request", note)
    page.goto(address)
    page.get_by_role("link", name="0002 lenet").first.wait_for()
    assert page.get_by_role("link", name="Prompts").count() == 0, "that is the other mode"
    names = [name for name in page.locator("a[href*='/runs/']").all_inner_texts() if name]
    assert names[:3] == ["0002 lenet", "0001 lenet", "LENET_1"]
    page.close()
    page = browser.new_page(viewport={"width": 1500, "height": 1000})  # without that view: the sweep's own run alone
    page.set_default_timeout(120_000)
    page.on("request", note)
    page.goto(f"{address.partition('&')[0]}&compareRunsMode=CHART")
    page.get_by_text("(5)", exact=True).wait_for()
    page.wait_for_function("document.querySelectorAll('.scatterlayer .point').length >= 3")
    page.close()
    assert elsewhere == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_server_ends_with_the_process_that_serves_it(sweep: Sweep, out: Path, new_sink: NewSink) -> None:
    sweep.whole()
    new_sink().sync()
    program = (
        "import sys, pathlib; from tracking.mlflow_sync.ui import page_server\n"
        "with page_server(sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])) as server:\n"
        "    print('serves as', server.pid, flush=True); server.wait()\n"
    )
    words = [sys.executable, "-c", program, default_uri(out), str(out / "mlartifacts"), str(free_port())]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("serves as"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(line.split()[-1]), 0)
