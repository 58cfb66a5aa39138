"""News of a sweep are posted to a receiver, in its form, and one that is away delays nothing."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sweeps.driver import notify
from sweeps.driver.notify import News, Notifier, fault_of, request_of
from tests.sweeps.fake_trials import metrics, only_sampled, open_desk, spec
from tracking.record.events import EpochDone
from tracking.record.history import SweepHistory


class Receiver:
    """An HTTP server that keeps what it is sent; its first answers are `answers`, then 200."""

    def __init__(self, answers: list[int]) -> None:
        self.bodies: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = answers.pop(0) if answers else 200
                if code == 200:
                    receiver.bodies.append(json.loads(body))
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(notify, "_FIRST_PAUSE_SECONDS", 0.01)
    made = Receiver([503, 429])
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_new_best_and_end_are_posted_again_where_the_receiver_was_away(
    run: Callable[..., int], receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--notify", receiver.url) == 0
    assert [body["event"] for body in receiver.bodies] == ["new best", "finished"]
    best, end = receiver.bodies
    assert best["text"].startswith("night: new best ")
    assert (best["sweep"], best["space"], best["trial"], best["epoch"]) == ("night", "my_space", 0, 1)
    assert end["text"].startswith("night: finished: ")
    assert sum(end["trials"].values()) == 4
    assert end["best"] >= best["value"]
    assert "not sent" not in capsys.readouterr().err


def test_the_end_names_the_winner_of_the_tables(run: Callable[..., int], receiver: Receiver, out: Path) -> None:
    """A single epoch may have been better than the mean of the trials that confirm the winner."""
    assert run("--notify", receiver.url, "--confirm", "1") == 0
    group = SweepHistory.load(out / "night/journal.jsonl").ranked_groups()[0]
    assert group.confirms is not None
    end = receiver.bodies[-1]
    assert end["best"] == pytest.approx(group.mean)
    assert f"; best {group.mean:.2%} val_accuracy, trial {group.first.number} " in end["text"]
    assert end["text"].endswith("3 seeds")


def test_a_best_soon_after_another_is_posted_later_and_one_that_is_no_number_never(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_BEST_EVERY_SECONDS", 0.3)
    held = open_desk(tmp_path / "night", only_sampled(first_rung_epochs=9), spec(max_epochs=9))
    notifier = Notifier(receiver.url, "night", held.director.history, print)
    held.task()
    for epoch, value in enumerate((math.nan, 0.5, 0.7, 0.6), start=1):
        event = EpochDone(trial=0, epoch=epoch, metrics=metrics(value))
        held.director.history.apply(event)
        if epoch == 4:
            time.sleep(0.4)
        notifier(event, held.director.history)
    notifier.close()
    assert [(body["value"], body["epoch"]) for body in receiver.bodies] == [(0.5, 2), (0.7, 3)]


def test_a_stopped_sweep_says_why(run: Callable[..., int], receiver: Receiver) -> None:
    run("--notify", receiver.url, "--cpu-hours", "1e-9")
    assert receiver.bodies[-1]["event"] == "stopped"
    assert "--cpu-hours 1e-09 is used up" in receiver.bodies[-1]["text"]


def test_a_receiver_that_refuses_is_told_of_and_delays_nothing(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_FIRST_PAUSE_SECONDS", 0.01)
    away = Receiver([410] * 9)
    began = time.monotonic()
    assert run("--notify", away.url) == 0
    assert time.monotonic() - began < 10
    assert "--notify 127.0.0.1: HTTP 410 Gone; 'finished' is not sent" in " ".join(capsys.readouterr().err.split())
    away.server.shutdown()
    away.server.server_close()


def test_a_receiver_that_hangs_or_talks_nonsense_delays_no_trial_and_is_named(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(notify, "_LAST_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        began = time.monotonic()
        assert run("--notify", f"http://127.0.0.1:{hangs.getsockname()[1]}/hook") == 0
        assert time.monotonic() - began < 10
    assert "127.0.0.1: does not answer; the last messages may not be sent" in " ".join(capsys.readouterr().err.split())

    with socket.create_server(("127.0.0.1", 0)) as babbles:

        def babble() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = babbles.accept()
                    with caller:
                        caller.recv(1 << 16)
                        caller.sendall(b"hello\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        assert run("--notify", f"http://127.0.0.1:{babbles.getsockname()[1]}/hook", "--resume", "--trials", "5") == 0
    assert "127.0.0.1: hello; 'finished' is not sent" in " ".join(capsys.readouterr().err.split())


def test_the_forms_of_slack_and_ntfy() -> None:
    news = News("finished", "night: finished", {"sweep": "night", "best": 0.5})

    def sent(url: str) -> tuple[str, dict[str, Any]]:
        request = request_of(url, news)
        assert isinstance(request.data, bytes)
        return request.full_url, json.loads(request.data)

    assert sent("https://hooks.slack.com/services/T/B/x") == (
        "https://hooks.slack.com/services/T/B/x",
        {"text": "night: finished"},
    )
    told = {"topic": "faces", "title": "sweep night: finished", "message": "night: finished"}
    assert sent("https://ntfy.sh/faces") == ("https://ntfy.sh/", told)
    assert sent("ntfy+http://push.lab:8080/faces") == ("http://push.lab:8080/", told)
    assert sent("http://lab/hook")[1] == {"event": "finished", "text": "night: finished", "sweep": "night", "best": 0.5}
    assert fault_of("https://ntfy.sh/") == "expected a topic, as https://ntfy.sh/my-sweeps"
    assert fault_of("ftp://lab/x")
    assert fault_of("http://lab:1/x") is None
