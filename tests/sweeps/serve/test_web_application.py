"""The web application over real HTTP: who may ask, what a bad upload is told, and a sweep that lives."""

from __future__ import annotations

import asyncio
import base64
import html
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import requests
from PIL import Image
from skimage import data

from sweeps import Space, run_sweep
from sweeps.cli.main import main
from sweeps.cli.overview import Best, Digest, Row
from sweeps.errors import InputError
from sweeps.runs import find_run
from sweeps.serve.acts import ActRequest
from sweeps.serve.command import run_verb
from sweeps.serve.guard import MAX_UPLOAD, guard_for
from sweeps.serve.models import pool as model_pool
from tests.ports import free_port
from tests.sweeps.serve.conftest import LENET, Served, unfinished
from tracking.record.events import AttemptStarted, DriverStarted, EpochDone
from tracking.record.folder_lock import hold_folder
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

pytestmark = pytest.mark.timeout(120)


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(data.astronaut()).save(file, "JPEG")
    return file.getvalue()


def test_a_photograph_is_answered_and_not_kept(server: Served, out: Path) -> None:
    before = sorted(out.rglob("*"))
    answer = requests.post(f"{server.url}/api/v1/predict?model=net.onnx", data=jpeg(), timeout=60)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["model"] == "night/0"
    assert "of 14 faces of val correct (95 % interval" in content["about"]
    assert content["faces"][0]["sentence"].startswith("the image expression is more ")
    assert sum(content["faces"][0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert [path for path in sorted(out.rglob("*")) if path not in before and path.name != ".list.json"] == []


def test_an_answer_says_where_the_net_looked(server: Served) -> None:
    address = f"{server.url}/api/v1/predict?model=net.onnx&looked=true"
    (face,) = requests.post(address, data=jpeg(), timeout=60).json()["faces"]
    kind, _, content = face["looked"].partition(",")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)
    assert kind == "data:image/png;base64"
    assert picture.shape == (192, 192, 3)
    assert (picture[..., 0] - picture[..., 2]).max() > 100, "some place is orange"


def test_a_net_is_exported_once_and_found_by_the_next_server(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def prepare(*words: str, timeout: float, module: str) -> str:
        asked.append(words)
        if len(words) == 1:
            return json.dumps([{"name": "champion", "version": ["lenet_space-1", "3"]}])
        shutil.copyfile(out / "net.onnx", words[-1])
        return ""

    monkeypatch.setenv("FER_CACHE", str(tmp_path))
    monkeypatch.setattr(model_pool, "run_verb", prepare)
    for _ in range(2):
        pool = model_pool.ModelPool(out)
        pool.warm()
        assert pool.names() == ["champion", "night/0", "net.onnx"]
        assert pool.get("night/0").about.name == "night/0"
    assert [words[1:-1] for words in asked] == [(), ("champion",), ("night/0",), ()]


def test_a_net_that_is_ready_does_not_wait_for_the_export_of_another(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_CACHE", str(tmp_path))
    begun, allowed = threading.Event(), threading.Event()

    def slow_export(*words: str, module: str, timeout: float) -> str:
        if len(words) == 1:
            return "[]"  # the registered models
        begun.set()
        assert allowed.wait(20)
        shutil.copyfile(out / "net.onnx", words[-1])
        return ""

    monkeypatch.setattr(model_pool, "run_verb", slow_export)
    pool = model_pool.ModelPool(out)
    with ThreadPoolExecutor(2) as threads:
        try:
            exported = threads.submit(pool.get, "night/0")
            assert begun.wait(20)
            assert threads.submit(pool.get, "net.onnx").result(10).classes
            assert not exported.done()
        finally:
            allowed.set()
        assert exported.result(10).classes


@pytest.mark.long
def test_an_ensemble_can_be_tried_and_a_support_vector_machine_is_not_offered(
    out: Path, tmp_path: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space(suggest=lambda trial: LENET.model_copy(update={"replicate": trial.number}), name="lenet_space")
    run_sweep(space, data=tiny_csv, trials=2, epochs=1, name="night", out=tmp_path, runner="inline", figures=False)
    for words in (
        ["ensemble", "night/0", "night/1", "--name", "both"],
        ["ensemble", "both/0", "night/1", "--name", "nested"],
        ["svm", "night/0", "--name", "head"],
    ):
        assert main([*words, "--out", str(tmp_path)]) == 0
    asked: list[str] = []

    def prepare(*words: str, timeout: float, module: str) -> str:
        if len(words) == 1:  # the registered models, which are listed again after a while
            return "[]"
        asked.append(words[-2])
        shutil.copyfile(out / "net.onnx", words[-1])
        return ""

    monkeypatch.setattr(model_pool, "run_verb", prepare)
    best, pool = find_run("night", tmp_path).name, model_pool.ModelPool(tmp_path)
    assert sorted(pool.names()) == ["both/0", "nested/0", best]
    pool.get("both/0")
    pool.get("nested/0")
    assert asked == ["both/0", "nested/0"]
    other = 1 - int(best.removeprefix("night/"))
    SweepFolder(tmp_path / "night").trial(other).best.unlink()
    assert pool.names() == [best]


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 422, "is empty"),
        (b"<svg/>", 422, "SVG is a drawing"),
        (jpeg()[:3000], 422, "is damaged or cut short"),
        (b"\0" * (MAX_UPLOAD + 1), 413, "too large: at most 10 MB"),
    ],
    ids=["empty", "svg", "cut", "large"],
)
def test_a_bad_upload_is_told_what_is_wrong(server: Served, content: bytes, status: int, message: str) -> None:
    answer = requests.post(f"{server.url}/api/v1/predict?model=net.onnx", data=content, timeout=60)
    assert answer.status_code == status
    assert message in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1/sweeps/night/acts", "/login", "/api/v1/predict"])
def test_no_more_of_a_body_than_allowed_is_taken(server: Served, path: str) -> None:
    answer = requests.post(
        server.url + path, data=b" " * (MAX_UPLOAD + 1), timeout=60, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert "too large: at most 10 MB" in answer.text


def test_what_is_absent_is_a_page_for_browsers_and_says_what_may_be_meant(server: Served) -> None:
    said = "no sweep 'nihgt'; did you mean 'night'?"
    assert requests.get(f"{server.url}/api/v1/sweeps/nihgt", timeout=60).json()["detail"].startswith(said)
    found = requests.get(f"{server.url}/sweeps/nihgt", timeout=60)
    assert (found.status_code, f"<h1>{said}" in html.unescape(found.text)) == (404, True)


def test_the_page_of_a_sweep_that_never_started_says_so(server: Served, out: Path) -> None:
    SweepFolder(out / "begun").create().journal.touch()
    found = requests.get(f"{server.url}/sweeps/begun", timeout=60)
    said = "<h1>begun: the journal is empty: the sweep never started"
    assert (found.status_code, said in html.unescape(found.text)) == (422, True)


def test_an_unknown_model_and_paths_lead_nowhere(server: Served) -> None:
    answer = requests.post(f"{server.url}/api/v1/predict?model=nett.onnx", data=jpeg(), timeout=60)
    assert (answer.status_code, answer.json()["detail"].partition(" (")[0]) == (
        422, "no model 'nett.onnx'; did you mean 'net.onnx'?",
    )  # fmt: skip
    for path in ("../../etc/passwd", "../night", "night/../night", "nihgt"):
        for place in ("/sweeps/", "/api/v1/sweeps/", "/static/"):
            found = requests.get(f"{server.url}{place}{quote(path, safe='')}", timeout=60)
            assert found.status_code == 404, (place, path)
        model = requests.post(f"{server.url}/api/v1/predict?model={quote(path, safe='')}", data=jpeg(), timeout=60)
        assert model.status_code == 422


def test_another_host_or_origin_is_refused(server: Served) -> None:
    foreign = requests.get(f"{server.url}/api/v1/sweeps", headers={"Host": "evil.example"}, timeout=60)
    assert (foreign.status_code, "evil.example" in foreign.text) == (400, True)
    place = f"{server.url}/api/v1/sweeps/night/acts"
    page = requests.post(place, json={"verb": "stop"}, headers={"Origin": "http://evil.example"}, timeout=60)
    assert (page.status_code, "may not use" in page.text) == (403, True)
    for host, status in (("[", 400), ("127.0.0.1:x", 200), ("[::1", 400)):
        assert requests.get(f"{server.url}/login", headers={"Host": host}, timeout=60).status_code == status, host
    odd = requests.post(place, json={"verb": "stop"}, headers={"Origin": "http://["}, timeout=60)
    assert odd.status_code == 403
    assert requests.get(server.url, timeout=60).headers["Content-Security-Policy"].startswith("default-src 'self'")


def test_a_host_is_allowed_however_its_capitals_are_written(out: Path, tmp_path: Path) -> None:
    with Served(out, guard_for("127.0.0.1", ["MyServer.example.com"], tmp_path / "token")) as served:
        for host, status in (("MyServer.example.com", 200), ("myserver.EXAMPLE.com:80", 200), ("example.com", 400)):
            assert requests.get(f"{served.url}/login", headers={"Host": host}, timeout=60).status_code == status, host


def test_elsewhere_than_on_this_machine_a_token_is_asked_for(out: Path, tmp_path: Path) -> None:
    guard = guard_for("0.0.0.0", ["127.0.0.1"], tmp_path / "token")
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    token = (tmp_path / "token").read_text().strip()
    with Served(out, guard) as served:
        ask = f"{served.url}/api/v1/sweeps"
        assert requests.get(ask, timeout=60).status_code == 401
        wrong = requests.get(ask, headers={"Authorization": "Bearer wrong"}, timeout=60)
        assert (wrong.status_code, wrong.json()["detail"][:21]) == (401, "that is not the token")
        assert requests.get(f"{ask}?token={token}", timeout=60).status_code == 401, "addresses are logged"
        assert requests.get(ask, headers={"Authorization": f"Bearer {token}"}, timeout=60).status_code == 200
        with requests.Session() as browser:
            assert "Token" in browser.get(served.url, timeout=60).text
            assert browser.post(f"{served.url}/login", data={"token": "wrong"}, timeout=60).status_code == 401
            assert "night" in browser.post(f"{served.url}/login", data={"token": token}, timeout=60).text
    assert guard_for("0.0.0.0", [], tmp_path / "token").token == token, "the next start has the same"
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(InputError, match="other users can read the token"):
        guard_for("0.0.0.0", [], tmp_path / "token")


def test_the_page_of_an_empty_folder_says_how_to_start_a_sweep_in_it(tmp_path: Path) -> None:
    with Served(tmp_path, guard_for("127.0.0.1", [], tmp_path / "token")) as served:
        text = requests.get(served.url, timeout=60).text
    assert f"<code>python -m sweeps.run alexnet_space --out {tmp_path}</code>" in text


def test_a_page_is_told_that_its_sweep_was_deleted(server: Served, out: Path) -> None:
    journal = unfinished(out, "deleted")
    with requests.get(f"{server.url}/api/v1/sweeps/deleted/events", stream=True, timeout=60) as stream:
        lines = (line.decode() for line in stream.iter_lines() if line)
        next(lines)
        shutil.rmtree(journal.parent)
        told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert told[-1] == "no sweep 'deleted' any more: its folder was deleted or renamed"


def test_the_state_of_a_sweep_that_waits_is_written_once(server: Served, out: Path) -> None:
    journal = unfinished(out, "queued")
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    with hold_folder(journal.parent) as hold:
        hold.wait_for("sweep hog of ann")
        shown = re.sub(r"<[^>]*>", "", requests.get(f"{server.url}/", timeout=60).text)
    shutil.rmtree(journal.parent)
    assert re.search(r"(?<!queued )queued +since .* for sweep hog of ann", shown)


def _events(url: str, heard: list[dict[str, Any]]) -> None:
    with requests.get(url, stream=True, timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith(b"data: "):
                heard.append(json.loads(line.removeprefix(b"data: ")))
                if len(heard) == 2:
                    return


def test_a_living_sweep_tells_what_changed_within_a_second(server: Served, out: Path) -> None:
    journal_file = unfinished(out, "alive")
    heard: list[dict[str, Any]] = []
    listener = threading.Thread(target=_events, args=(f"{server.url}/api/v1/sweeps/alive/events", heard))
    listener.start()
    while not heard:
        time.sleep(0.01)
    assert heard[0]["trials"][0]["state"] == "running"
    with Journal.open(journal_file) as journal:
        journal.append(
            DriverStarted(host="here", pid=1, versions={}),
            AttemptStarted(trial=0, attempt=1, reason="resumed"),
            EpochDone(trial=0, epoch=3, metrics={"val_accuracy": 0.875, "epoch_seconds": 1.0}),
        )
    began = time.monotonic()
    listener.join(30)
    assert time.monotonic() - began < 5  # 0.4 s on a machine that does nothing else
    assert heard[1]["trials"][0]["curve"][-1] == [3, 0.875]
    assert heard[1]["summary"]["digest"]["best"]["value"] == 0.875


def test_a_browser_that_goes_away_leaves_nothing_behind(server: Served) -> None:
    for _ in range(3):
        with requests.get(f"{server.url}/api/v1/sweeps/night/events", stream=True, timeout=60) as stream:
            next(stream.iter_lines())
    deadline = time.monotonic() + 20
    while server.server_state.connections and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not server.server_state.connections
    assert requests.get(server.url, timeout=60).status_code == 200


def test_a_server_that_ends_closes_its_streams(out: Path) -> None:
    with (
        Served(out, guard_for("127.0.0.1", [], out / "none")) as served,
        requests.get(f"{served.url}/api/v1/sweeps/night/events", stream=True, timeout=60) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        served.should_exit = True
        assert list(lines) == [b""]  # a stream that is cut off raises ChunkedEncodingError


@pytest.mark.long
def test_a_thousand_requests_at_once_are_all_answered(out: Path) -> None:
    async def status(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/v1/sweeps/night HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer[9:12]

    async def all_of(port: int) -> list[bytes]:
        return await asyncio.gather(*(status(port) for _ in range(1000)))

    words = [sys.executable, "-m", "sweeps", "serve", "--out", str(out), "--port", str(port := free_port())]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            while True:
                with suppress(requests.ConnectionError):
                    requests.get(f"http://127.0.0.1:{port}/login", timeout=60)
                    break
                time.sleep(0.1)
            assert set(asyncio.run(all_of(port))) == {b"200"}
        finally:
            server.terminate()


def test_an_act_on_a_finished_sweep_is_answered_as_the_command_does(server: Served) -> None:
    place = f"{server.url}/api/v1/sweeps/night/acts"
    refused = requests.post(place, json={"verb": "pause"}, timeout=120)
    assert (refused.status_code, "does not run" in refused.json()["detail"]) == (422, True), refused.text
    assert requests.post(place, json={"verb": "remove"}, timeout=60).status_code == 422
    assert requests.post(f"{server.url}/api/v1/sweeps/nihgt/acts", json={"verb": "stop"}, timeout=60).status_code == 404


@pytest.mark.parametrize("given", [{"verb": "try", "settings": ["--out=x"]}, {"verb": "extend", "trials": "--debug"},
                                   {"verb": "stop", "trial": -1}, {"verb": "stop", "extra": 1}])  # fmt: skip
def test_what_a_visitor_writes_never_becomes_an_option(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ActRequest.model_validate(given)


def test_a_port_that_is_taken_and_a_folder_that_is_absent_are_named(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--out", str(out), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert main(["serve", "--out", str(out / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_fault_of_a_command_reaches_the_terminal_and_not_the_visitor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^status failed; the server's terminal shows why$"):
        run_verb("status", "--debug", "--out", "/nowhere", "absent", timeout=60)
    assert "Traceback" in capsys.readouterr().err
    with pytest.raises(InputError, match="absent"):
        run_verb("status", "--out", "/nowhere", "absent", timeout=60)


def test_nets_of_real_faces_come_before_better_ones_of_drawn_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(name: str, synthetic: bool, value: float) -> Row:
        best = SweepFolder(tmp_path / name).trial(0).create().best
        best.write_bytes(b"weights")
        digest = Digest(
            synthetic=synthetic,
            best=Best(trial=0, epoch=1, value=value, mean_of=None, nets={f"{name}/0": 1.0}),
            finished=True,
        )
        return Row(name=name, state="finished", owner="", slots=0, driver=None, seconds_left=None, digest=digest)

    rows = [row("drawn", True, 0.9), row("real", False, 0.6), row("better", False, 0.7)]
    monkeypatch.setattr(model_pool, "all_sweeps", lambda out: rows)
    assert model_pool.ModelPool(tmp_path).names() == ["better/0", "real/0", "drawn/0"]


_KEEPS_FREED_MEMORY = """
import sys
from sweeps.serve.models.pool import return_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
blocks = [bytearray(10_000) for _ in range(20_000)]
last = blocks[-1]  # at the end of the heap: what is freed before it stays in the C library
del blocks
before = resident()
return_freed_memory()
assert before - resident() > 100e6, (before, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can give memory back")
def test_freed_memory_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", _KEEPS_FREED_MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
