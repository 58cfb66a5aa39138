"""Posts events of a sweep to a URL in a separate thread, so that a slow receiver does not delay the sweep."""

from __future__ import annotations

import json
import math
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from tracking.record.events import OBJECTIVE, EpochDone, Event, TrialEnded
from tracking.record.history import SweepHistory

What = Literal["new best", "failed", "finished", "stopped"]
_TRIES = 4
_FIRST_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 5.0
_BEST_EVERY_SECONDS = 30.0
"""Minimum time between two messages about a new best; the last of those in between is posted after it.

Early in a sweep nearly every epoch is a new best.
"""
_MOST_WAITING = 100
_LAST_SECONDS = 8.0


@dataclass(frozen=True)
class News:
    """One message; `facts` are for programs."""

    what: What
    text: str
    facts: dict[str, Any]


def fault_of(url: str) -> str | None:
    """The reason why `url` is not valid, or None."""
    parts = urlsplit(url)
    if parts.scheme.removeprefix("ntfy+") not in ("http", "https") or not parts.hostname:
        return "expected http://… or https://…, or ntfy+https://HOST/TOPIC for an ntfy server"
    if _is_ntfy(url) and not parts.path.strip("/"):
        return "expected a topic, as https://ntfy.sh/my-sweeps"
    return None


def request_of(url: str, news: News) -> urllib.request.Request:
    """The request in the format of Slack or ntfy. For other receivers it has all facts, and the `text` of Slack."""
    parts = urlsplit(url)
    body: dict[str, Any]
    if parts.hostname == "hooks.slack.com":
        body = {"text": news.text}
    elif _is_ntfy(url):
        host = urlunsplit((parts.scheme.removeprefix("ntfy+"), parts.netloc, "/", "", ""))
        body = {"topic": parts.path.strip("/"), "title": f"sweep {news.facts['sweep']}: {news.what}",
                "message": news.text}  # fmt: skip
        url = host
    else:
        body = {"event": news.what, "text": news.text, **news.facts}
    return urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "User-Agent": "fer-sweeps"}
    )


def _is_ntfy(url: str) -> bool:
    return url.startswith("ntfy+") or urlsplit(url).hostname == "ntfy.sh"


class Notifier:
    """Listens to a sweep and posts new bests and failures; `end` posts how the sweep ended."""

    def __init__(self, url: str, sweep: str, history: SweepHistory, on_warning: Callable[[str], None]) -> None:
        self._url, self._sweep, self._warn = url, sweep, on_warning
        self._best = next((trial.best_accuracy for trial in history.ranked()), None)
        self._untold: EpochDone | None = None
        self._told_at = -_BEST_EVERY_SECONDS
        self._news: queue.Queue[News | None] = queue.Queue(_MOST_WAITING)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._post_all, name="notify", daemon=True)
        self._thread.start()

    def __call__(self, event: Event, history: SweepHistory) -> None:
        """Handle an event of the director."""
        if isinstance(event, EpochDone):
            self._take_epoch(event, history)
        elif isinstance(event, TrialEnded) and event.state == "failed":
            title = history.trials[event.trial].started.title
            text = f"{self._sweep}: trial {event.trial} {title} failed: {event.reason}"
            self._tell("failed", text, history, trial=event.trial, reason=event.reason)

    def end(self, history: SweepHistory) -> None:
        """Post how the sweep ended."""
        what: What = "finished" if history.finished else "stopped"
        reason = f" ({history.stopped.reason})" if history.stopped else ""
        counts = ", ".join(f"{count} {state}" for state, count in history.states.items())
        best = ""
        if ranked := history.ranked_groups():  # as in the tables: of a group the mean, confirmed ones first
            self._best, first = ranked[0].mean, ranked[0].first
            best = f"; best {self._best:.2%} {OBJECTIVE}, trial {first.number} {first.started.group_title}"
        self._tell(what, f"{self._sweep}: {what}{reason}: {counts}{best}", history)

    def close(self) -> None:
        """Stop posting; messages that are still waiting have some seconds."""
        self._put(None)
        self._thread.join(_LAST_SECONDS)
        self._closed.set()
        if self._thread.is_alive():
            self._warn(f"--notify {urlsplit(self._url).hostname}: does not answer; the last messages may not be sent")

    def _take_epoch(self, event: EpochDone, history: SweepHistory) -> None:
        value, now = event.metrics[OBJECTIVE], time.monotonic()
        if value > (self._best if self._best is not None else -math.inf):
            self._best, self._untold = value, event
        if self._untold is None or now - self._told_at < _BEST_EVERY_SECONDS:
            return
        best, self._untold, self._told_at = self._untold, None, now
        value, title = best.metrics[OBJECTIVE], history.trials[best.trial].started.title
        text = f"{self._sweep}: new best {value:.2%} {OBJECTIVE}, trial {best.trial} {title}, epoch {best.epoch}"
        self._tell("new best", text, history, trial=best.trial, epoch=best.epoch, value=value)

    def _tell(self, what: What, text: str, history: SweepHistory, **facts: Any) -> None:
        common = {"sweep": self._sweep, "space": history.started.space, "best": self._best,
                  "trials": history.states, "time_ms": time.time_ns() // 1_000_000}  # fmt: skip
        self._put(News(what, text, common | facts))

    def _put(self, news: News | None) -> None:
        while True:
            try:
                self._news.put_nowait(news)
                return
            except queue.Full:  # the receiver was unreachable for long: drop the oldest message
                with suppress(queue.Empty):  # the thread took it in the meantime
                    self._news.get_nowait()

    def _post_all(self) -> None:
        while (news := self._news.get()) is not None and not self._closed.is_set():
            fault = self._post(news)
            if fault and not self._closed.is_set():
                self._warn(f"--notify {urlsplit(self._url).hostname}: {fault}; '{news.what}' is not sent")

    def _post(self, news: News) -> str | None:
        """Post it, with retries. Returns the last fault, or None."""
        fault = None
        for attempt in range(_TRIES):
            if attempt and self._closed.wait(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)):
                break
            try:
                with urllib.request.urlopen(request_of(self._url, news), timeout=_TIMEOUT_SECONDS):
                    return None
            except urllib.error.HTTPError as error:
                fault = f"HTTP {error.code} {error.reason}"
                if error.code < 500 and error.code != 429:
                    break  # a retry would fail, too
            except (OSError, ValueError, HTTPException) as error:
                fault = str(getattr(error, "reason", error)).strip()
        return fault
