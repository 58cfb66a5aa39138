"""Draws the pictures of the web application and of a report in docs/, from drawn faces and never from people's.

python -m tests.draw_pages [--folder docs]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer_data import DataOptions
from sweeps.cli.main import main as sweeps
from sweeps.spaces.lenet_space import SPACE
from sweeps.sweep import run_sweep
from tests.benchmarks.page import browser, server

_TRIALS, _EPOCHS, _FACES = 8, 6, 500
_NAME = "faces"
_WIDTH = 1200
_WINDOW: Any = {"width": _WIDTH, "height": 900}
_PHONE: Any = {"width": 390, "height": 844}
_EXAMPLE = 3


def main() -> None:
    """Train a small sweep, serve it, and draw its page, a face tried, and its report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory(prefix="fer-pages-") as scratch:
        out = Path(scratch) / "runs"
        space = replace(SPACE, name="lenet_space")
        run_sweep(space, data=DataOptions(limit_train=_FACES), trials=_TRIALS, epochs=_EPOCHS, name=_NAME, out=out,
                  runner="inline", figures=False)  # fmt: skip
        sweeps(["report", _NAME, "--out", str(out)])
        sweeps(["export", _NAME, "--format", "onnx", "--file", str(out / "net.onnx"), "--out", str(out)])
        with server(out) as (_, url), browser() as page:
            page.goto(f"{url}/sweeps/{_NAME}")
            page.locator("#trials tbody tr").nth(_TRIALS - 1).wait_for()
            page.locator("#settings-line", has_text="Computing").wait_for(state="detached", timeout=120_000)
            _draw(page, folder / "serve_sweep.png", "#trials")
            page.goto(f"{url}/try")
            page.select_option("#model", "net.onnx")
            page.locator("#about", has_text="95 % interval").wait_for(timeout=120_000)
            page.locator(f"[data-example='{_EXAMPLE}']").click()
            page.locator("section.face img").wait_for(timeout=60_000)
            _draw(page, folder / "serve_try.png", ".result")
            page.goto(f"{url}/sweeps/{_NAME}/report")
            page.screenshot(path=folder / "report_light.png")
            page.set_viewport_size(_PHONE)
            page.screenshot(path=folder / "report_phone.png")
            page.set_viewport_size(_WINDOW)
            page.emulate_media(color_scheme="dark")
            page.locator("h3", has_text="Accuracy and its price").evaluate("title => title.scrollIntoView()")
            page.screenshot(path=folder / "report_dark.png")


def _draw(page: Any, path: Path, last: str) -> None:
    """The page down to its element `last`; below that are paths of this machine, or nothing."""
    bottom = page.evaluate("(last) => Math.ceil(document.querySelector(last).getBoundingClientRect().bottom)", last)
    page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": _WIDTH, "height": bottom + 8})


if __name__ == "__main__":
    main()
