"""Acts, settings and MLflow's page of a sweep by the web application."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from sweeps.cli.main import parser
from sweeps.errors import InputError
from sweeps.serve import api, search
from sweeps.serve.acts import ActRequest
from sweeps.serve.command import run_verb
from sweeps.serve.guard import Guard
from sweeps.serve.mlflow_page import MlflowPages
from tests.ports import free_port
from tests.sweeps.serve.conftest import Served
from tracking.record.folder_lock import hold_folder
from tracking.record.layout import SweepFolder

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"verb": "pause"}, ["night"]),
        ({"verb": "stop", "trial": 3}, ["night", "3"]),
        ({"verb": "extend", "trials": "+5"}, ["night", "--trials", "+5"]),
        ({"verb": "extend", "epochs": "30"}, ["night", "--epochs", "30"]),
        ({"verb": "try", "settings": ["lr=0.01"]}, ["night", "lr=0.01"]),
        ({"verb": "set", "settings": ["max-concurrent=2"]}, ["night", "max-concurrent=2"]),
        ({"verb": "fork", "trial": 3, "settings": ["lr=0.01"]}, ["night/3", "lr=0.01"]),
        ({"verb": "retry"}, ["night", "--failed"]),
    ],
    ids=lambda given: given["verb"] if isinstance(given, dict) else "",
)
def test_an_act_is_the_command_of_its_name(given: dict[str, Any], words: list[str]) -> None:
    request = ActRequest.model_validate(given)
    assert request.words("night") == words
    assert parser().parse_args([request.verb, *words]).verb == request.verb


@pytest.mark.long
def test_an_act_that_takes_too_long_is_taken_back(out: Path) -> None:
    words = ["pause", "night", "--out", str(out)]
    folder = SweepFolder(out / "night")
    with hold_folder(folder.root), pytest.raises(InputError, match="took longer than 8 s"):
        run_verb(*words, timeout=8)
    assert folder.inbox.is_dir(), "it was asked for"
    assert list(folder.inbox.iterdir()) == []


def test_a_refusal_after_a_warning_has_its_reason(tmp_path: Path) -> None:
    """A command warns when it has waited three seconds for the driver, which may then refuse its act."""
    said = "warning: night: waiting for host a\nerror: night: no trial 99\n  there are 0 to 1\n"
    (tmp_path / "refusing.py").write_text(f"import sys\nsys.stderr.write({said!r})\nsys.exit(2)\n")
    with pytest.raises(InputError) as refused:
        run_verb("pause", "night", "99", timeout=60, module="refusing")
    assert str(refused.value) == "night: no trial 99\n  there are 0 to 1"


def test_a_fork_without_a_trial_or_settings_is_refused() -> None:
    for given, message in (
        ({"trial": 1}, "give settings, as lr=0.01"),
        ({"settings": ["lr=1"]}, "fork: give the trial"),
    ):
        with pytest.raises(InputError, match=message):
            ActRequest.model_validate({"verb": "fork", **given}).words("night")


@pytest.mark.parametrize(
    "given",
    [
        {"verb": "retry"},
        {"verb": "extend", "trials": "+5"},
        {"verb": "try", "settings": ["lr=0.01"]},
        {"verb": "set", "settings": ["priority=5"]},
    ],
    ids=lambda given: given["verb"],
)
def test_an_act_on_the_whole_sweep_refuses_a_trial(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"{given['verb']}: takes no trial \(1 is given\)"):
        ActRequest.model_validate(given | {"trial": 1}).words("night")


def test_an_act_that_is_not_valid_is_refused_in_one_line(server: Served) -> None:
    place = f"{server.url}/api/v1/sweeps/night/acts"
    answer = requests.post(place, json={"verb": "try", "settings": ["lr 0.1"]}, timeout=60)
    assert (answer.status_code, answer.json()["detail"]) == (422, "settings lr 0.1: must be KEY=VALUE, such as lr=0.01")
    answer = requests.post(place, json={"verb": "extend", "trials": "ten"}, timeout=60)
    assert answer.json()["detail"] == "trials ten: must be a number, or +N to add N"
    answer = requests.post(place, data="{", headers={"Content-Type": "application/json"}, timeout=60)
    assert answer.json()["detail"].endswith(": JSON decode error")


def test_slow_requests_leave_threads_for_the_pages(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = threading.Event()
    monkeypatch.setattr(api, "act", lambda *_: str(enough.wait(60)))
    with ThreadPoolExecutor(60) as many:
        place = f"{server.url}/api/v1/sweeps/night/acts"
        asked = [many.submit(requests.post, place, json={"verb": "stop"}, timeout=120) for _ in range(60)]
        try:
            time.sleep(1)
            assert requests.get(f"{server.url}/api/v1/sweeps/night", timeout=10).status_code == 200
        finally:
            enough.set()
        assert {one.result().status_code for one in asked} == {200}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The processes that find the settings of a sweep; each takes 0.2 s."""
    words_of: list[tuple[str, ...]] = []

    def run_verb(*words: str, timeout: float, module: str) -> str:
        words_of.append(words)
        time.sleep(0.2)
        return "{}"

    monkeypatch.setattr(search, "run_verb", run_verb)
    return words_of


def test_many_pages_that_ask_for_the_same_settings_start_one_process(
    tmp_path: Path, started: list[tuple[str, ...]]
) -> None:
    searches = search.Searches(tmp_path)
    with ThreadPoolExecutor(8) as many:
        list(many.map(lambda _: searches.get("night", search.Version("a", 9, is_driven=True)), range(8)))
    assert len(started) == 1


def test_settings_are_found_again_when_the_sweep_has_changed(tmp_path: Path, started: list[tuple[str, ...]]) -> None:
    searches = search.Searches(tmp_path)
    for sweep_id, size, is_driven, processes in [
        ("a", 10, True, 1),
        ("a", 12, True, 1),  # at most a small part of the time while it has a driver
        ("a", 14, False, 2),
        ("a", 14, False, 2),
        ("a", 16, False, 3),
        ("b", 16, True, 4),  # another sweep under the same name
    ]:
        searches.get("night", search.Version(sweep_id, size, is_driven))
        assert len(started) == processes


@pytest.mark.long
def test_the_settings_of_a_sweep_have_places_on_their_axes(server: Served, out: Path) -> None:
    axis = json.dumps(
        {"name": "FloatDistribution", "attributes": {"low": 0.0, "high": 1.0, "step": None, "log": False}}
    )
    (out / "searched").mkdir()
    lines = (out / "night/journal.jsonl").read_text().replace('"night"', '"searched"').splitlines(keepends=True)
    events = [json.loads(line) for line in lines]
    for event in events:
        if event["event"] == "trial":
            event |= {"params": {"recipe.lr": 0.25}, "distributions": {"recipe.lr": axis}}
    (out / "searched/journal.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    answer = requests.get(f"{server.url}/api/v1/sweeps/searched/settings", timeout=120).json()
    assert answer["settings"] == [{"name": "recipe.lr", "log": False, "ticks": [[0.0, "0"], [1.0, "1"]]}]
    assert [trial["places"] for trial in answer["trials"]] == [[0.25]]
    assert (answer["importances"], answer["least_trials"]) == ({}, 30), "one trial says nothing of importance"
    better = next(event for event in reversed(events) if event["event"] == "epoch")
    better |= {"epoch": better["epoch"] + 1, "metrics": better["metrics"] | {"val_accuracy": 0.75}}
    with (out / "searched/journal.jsonl").open("a") as journal:
        journal.write(json.dumps(better) + "\n")
    answer = requests.get(f"{server.url}/api/v1/sweeps/searched/settings", timeout=120).json()
    assert [trial["value"] for trial in answer["trials"]] == [0.75]


@pytest.mark.long
def test_mlflow_page_of_a_sweep_is_served_until_the_server_ends(out: Path) -> None:
    pages = MlflowPages(out, None)
    with Served(out, Guard(frozenset({"127.0.0.1"}), None), pages) as served:
        answer = requests.post(f"{served.url}/api/v1/sweeps/night/mlflow", timeout=180).json()
        assert "workflowType=machine_learning" in answer["address"]
        root = answer["address"].partition("#")[0]
        assert requests.get(root, timeout=60).status_code == 200
    wait_until_gone(root)


@pytest.mark.long
def test_no_mlflow_server_is_left_where_the_application_is_killed(out: Path) -> None:
    port = free_port()
    words = [sys.executable, "-m", "sweeps", "serve", "--out", str(out), "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as application:
        try:
            wait_for_port(port)
            answer = requests.post(f"http://127.0.0.1:{port}/api/v1/sweeps/night/mlflow", timeout=120).json()
        finally:
            application.kill()
    wait_until_gone(answer["address"].partition("#")[0])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail("the application does not answer")


def wait_until_gone(address: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            requests.get(address, timeout=5)
        except requests.ConnectionError:
            return
        time.sleep(0.2)
    pytest.fail(f"the server at {address} is still there")
