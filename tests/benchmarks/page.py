"""A sweep's page in a browser: the server's first answer, the page drawn, and an event that becomes visible.

    python -m tests.benchmarks.page [--trials 10000] [--repeats 5] [--screenshot FILE]

The trials are those of a simulated sweep, repeated with other accuracies. The server is `python -m sweeps serve`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from tests.benchmarks.many_trials import many_trials
from tests.benchmarks.rows import spread
from tests.ports import free_port
from tracking.record.events import EpochDone
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

_SHOWN = "performance.getEntriesByName('shown').length > 0"
_SECONDS = 120
_UNUSED_SECONDS = 140
"""After this time the server no longer keeps the sweep in memory."""
_IDLE_SECONDS = 20


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--screenshot", type=Path)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="fer-page-") as scratch:
        folder = many_trials(Path(scratch), asked.trials)
        with server(Path(scratch)) as (process, url), browser() as page:
            rows = _measured(page, f"{url}/sweeps/{folder.root.name}", folder, asked.repeats)
            if asked.screenshot:
                page.screenshot(path=asked.screenshot)
            page.goto("about:blank")
            rows += _idle(process)
        megabytes = folder.journal.stat().st_size / 1e6
    table = Table(title=f"the page of {asked.trials:,} trials, a journal of {megabytes:.0f} MB; n = {asked.repeats}")
    for heading in ("measure", "ours", "target"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)
    Console(width=100).print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")


def _measured(page: Page, url: str, folder: SweepFolder, repeats: int) -> list[tuple[str, str, str]]:
    cold = _load(page, url)
    loads = [_load(page, url) for _ in range(repeats)]
    with Journal.open(folder.journal) as journal:
        seen = [_seen(page, journal, epoch) for epoch in range(1, repeats + 1)]
    first, shown, size, busy = zip(*loads, strict=True)
    return [
        ("first answer after the server's start, s", f"{cold[0]:.2f}", ""),
        ("first answer, s", spread(first, 2), "≤ 1"),
        ("page drawn with all trials, s", spread(shown, 2), "≤ 2"),
        ("longest time that the page does not react, s", spread(busy, 2), ""),
        ("received, MB", spread(size, 2), ""),
        ("an event visible, s", spread(seen, 2), "≤ 1"),
    ]


def _load(page: Page, url: str) -> tuple[float, float, float, float]:
    """Seconds to the first byte and to the page drawn, MB received, and the longest task of the page in seconds."""
    received = [0]
    page.add_init_script(
        "window.tasks = [0]; new PerformanceObserver((list) => window.tasks.push("
        "...list.getEntries().map((one) => one.duration))).observe({ entryTypes: ['longtask'] });"
    )
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.dataReceived", lambda one: received.append(one["encodedDataLength"]))
    page.goto(url)
    page.wait_for_function(_SHOWN, timeout=1000 * _SECONDS)
    first, shown, busy = page.evaluate(
        "[performance.getEntriesByType('navigation')[0].responseStart, "
        "performance.getEntriesByName('shown')[0].startTime, Math.max(...window.tasks)]"
    )
    session.detach()
    return first / 1e3, shown / 1e3, sum(received) / 1e6, busy / 1e3


def _seen(page: Page, journal: Journal, epoch: int) -> float:
    """Seconds from the event's fsync until the page shows it."""
    number = int(page.evaluate("Math.max(...trials.keys())"))
    page.fill("#search", f"{number} running")
    journal.append(
        EpochDone(trial=number, epoch=epoch, metrics={"val_accuracy": 0.5 + epoch / 100, "epoch_seconds": 1})
    )
    began = time.monotonic()
    text = f"{50 + epoch}.0\u00a0%"
    page.wait_for_function(
        "(text) => document.querySelector('#trials tbody').textContent.includes(text)",
        arg=text, polling="raf", timeout=1000 * _SECONDS,
    )  # fmt: skip
    return time.monotonic() - began


def _idle(process: psutil.Process) -> list[tuple[str, str, str]]:
    time.sleep(3)  # the browser is gone, and the server notices
    kept = _mebibytes(process)
    time.sleep(_UNUSED_SECONDS)
    before = process.cpu_times()
    time.sleep(_IDLE_SECONDS)
    after = process.cpu_times()
    share = (after.user + after.system - before.user - before.system) / _IDLE_SECONDS
    return [
        ("the server when idle, % of a core", f"{100 * share:.2f}", "≤ 1"),
        ("its memory just after the last page, MiB", kept, ""),
        ("its memory when idle, MiB", _mebibytes(process), "≤ 300"),
    ]


def _mebibytes(process: psutil.Process) -> str:
    return f"{process.memory_info().rss / 2**20:.0f}"


@contextmanager
def server(out: Path) -> Iterator[tuple[psutil.Process, str]]:
    """`python -m sweeps serve`: its process and its address."""
    port = free_port()
    command = [sys.executable, "-m", "sweeps", "serve", "--out", str(out), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                requests.get(f"{url}/login", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.2)
        try:
            yield psutil.Process(process.pid), url
        finally:
            process.terminate()


@contextmanager
def browser() -> Iterator[Page]:
    """A page of Chromium without a window."""
    with sync_playwright() as driver:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield opened.new_context(viewport={"width": 1200, "height": 900}, bypass_csp=True).new_page()
        opened.close()


if __name__ == "__main__":
    main()
