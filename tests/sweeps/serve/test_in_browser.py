"""The web application in a real browser: accessibility of every page, a face tried, and use by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from tests.sweeps.serve.conftest import Served, unfinished

pytestmark = pytest.mark.timeout(180)

PAGES = ("/", "/sweeps/night", "/try", "/api/v1/docs", "/login")
LARGE, PHONE = {"width": 1100, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened, faults = browser.new_page(viewport=PHONE, color_scheme="dark"), []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    yield opened
    assert faults == []
    opened.close()


@pytest.mark.parametrize(
    ("view", "scheme"),
    [
        pytest.param(LARGE, "light", id="large-light"),
        *(
            pytest.param(*other, marks=pytest.mark.long)
            for other in ((LARGE, "dark"), (PHONE, "light"), (PHONE, "dark"))
        ),
    ],
)
def test_axe_finds_no_serious_fault_on_any_page(browser: Any, server: Served, view: Any, scheme: str) -> None:
    package = pytest.importorskip("axe_playwright_python")
    axe = (Path(package.__path__[0]) / "axe.min.js").read_text(encoding="utf-8")
    context = browser.new_context(viewport=view, color_scheme=scheme, bypass_csp=True)
    opened = context.new_page()
    for path in PAGES:
        opened.goto(server.url + path)
        opened.evaluate(axe)
        found = opened.evaluate("axe.run()")["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == [], path
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the window"
    context.close()


def test_a_chosen_photograph_has_bars_and_where_the_net_looked(page: Any, server: Served, tmp_path: Path) -> None:
    Image.fromarray(data.astronaut()).save(tmp_path / "face.png")  # type: ignore[no-untyped-call]
    page.goto(f"{server.url}/try")
    page.select_option("#model", "net.onnx")
    page.set_input_files("#file", tmp_path / "face.png")
    face = page.locator("section.face")
    face.wait_for(timeout=60_000)
    assert page.inner_text("#answer").startswith("The image expression is more ")
    assert face.locator(".bar").count() == 7
    assert face.locator("img").evaluate("image => image.naturalWidth") == 192


def test_another_net_is_asked_about_the_same_picture_in_the_same_way(page: Any, server: Served) -> None:
    page.goto(f"{server.url}/try")
    page.select_option("#model", "net.onnx")
    page.get_by_alt_text("Synthetic face 3").click()
    page.locator("section.face").wait_for(timeout=60_000)
    with page.expect_request("**/api/v1/predict?**") as asked:
        page.select_option("#model", "night/0")
    assert "whole=true" in asked.value.url


def test_a_file_or_server_that_cannot_answer_is_said(page: Any, server: Served, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(11 * 2**20))
    Image.fromarray(data.astronaut()).save(tmp_path / "face.png")  # type: ignore[no-untyped-call]
    page.goto(f"{server.url}/try")
    for file, fail, said in (
        ("large.png", None, "This file is too large: at most 10 MB."),
        ("face.png", lambda route: route.abort(), "The server does not answer. Is it still running?"),
        ("face.png", lambda route: route.fulfill(status=500, body="Internal Server Error"),
         "The server failed (500); its terminal shows why."),
    ):  # fmt: skip
        page.unroute_all()
        if fail:
            page.route("**/api/v1/predict?**", fail)
        page.set_input_files("#file", tmp_path / file)
        page.locator("#answer", has_text=said).wait_for(timeout=10_000)


def test_a_stopped_sweep_of_two_objectives_has_its_front_and_says_how_to_continue(
    page: Any, server: Served, out: Path
) -> None:
    lines = (out / "night/journal.jsonl").read_text().replace('"night"', '"both"')
    lines = lines.replace('"objectives":["val_accuracy"]', '"objectives":["val_accuracy","seconds"]')
    (out / "both").mkdir()
    (out / "both/journal.jsonl").write_text(
        "".join(one for one in lines.splitlines(True) if '"event":"finished"' not in one)
    )
    page.goto(f"{server.url}/sweeps/both")
    front = page.locator("#front tbody tr")
    front.wait_for(timeout=60_000)
    best = front.locator("td").nth(1).inner_text()
    assert page.inner_text("#best") == best
    assert page.locator("#front th").all_inner_texts() == ["trial", "val_accuracy", "seconds"]
    assert f"python -m sweeps resume both --out {out}" in page.inner_text("#line")
    assert page.inner_text("#left-about") == ""
    assert "When trials had a worker" in page.inner_text("#timeline-about")


def test_a_long_name_fits_on_a_phone(page: Any, server: Served, out: Path) -> None:
    name = "n" * 99
    unfinished(out, name)
    page.goto(f"{server.url}/sweeps/{name}")
    page.locator("#line", has_text=f"resume {name}").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_keyboard_alone_reaches_an_act(page: Any, server: Served) -> None:
    page.goto(f"{server.url}/sweeps/night")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "settings":
            break
    page.on("dialog", lambda dialog: dialog.accept())
    page.keyboard.type("lrr=0.01")
    page.keyboard.press("Enter")
    page.locator("#answer", has_text="did you mean 'lr'?").wait_for(timeout=60_000)
