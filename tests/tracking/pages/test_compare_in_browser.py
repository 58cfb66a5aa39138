"""A comparison's page in a real browser: what its reader sorts and filters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from tracking.metrics.compare import ComparedRun, compare
from tracking.pages.compare_page import comparison_page
from tracking.record.predictions import Predictions

pytestmark = pytest.mark.timeout(120)

CLASSES = ("Angry", "Happy", "Sad", "Neutral")
LABELS = np.arange(120) % 4
FACES = np.random.default_rng(0).integers(0, 255, (120, 8, 8), dtype=np.uint8)
RATES = {"mild": 0.02, "bold": 0.1}


def compared_run(name: str, seed: int) -> ComparedRun:
    logits = np.eye(4)[LABELS] + np.random.default_rng(seed).normal(size=(120, 4))
    settings = {"recipe.lr": str(RATES[name]), "recipe.momentum": str(0.9 + seed / 100),
                "net.name": name, "net.dropout": str(seed / 10), "augment.flip": str(seed)}  # fmt: skip
    return ComparedRun(
        name=name, settings=settings, metrics={}, dataset="FER2013", fingerprint="ab12", split="val", classes=CLASSES,
        synthetic=False, answers=Predictions(LABELS, softmax(logits, axis=1).astype(np.float32), 1),
    )  # fmt: skip


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    found = compare([compared_run("mild", 1), compared_run("bold", 2)])
    (tmp_path / "page.html").write_text(comparison_page(found, FACES))
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.faults = []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.goto((tmp_path / "page.html").as_uri())
    yield opened
    assert opened.faults == []
    opened.close()


def column(page: Any, table: str, index: int) -> list[str]:
    """The visible cells of a column."""
    rows = page.locator(f"table[data-filter={table}] tbody tr:visible")
    return [rows.nth(row).locator("td").nth(index).inner_text() for row in range(rows.count())]


def test_a_click_sorts_by_number_and_a_second_one_turns_it_round(page: Any) -> None:
    heading = page.locator("table[data-filter=classes] th", has_text="F1 difference")

    def differences() -> list[float]:
        return [float(text.split(" ")[0].replace("−", "-")) for text in column(page, "classes", 1)]

    assert column(page, "classes", 0) == list(CLASSES)
    heading.click()
    assert differences() == sorted(differences())
    assert len(set(differences())) > 2
    heading.click()
    assert differences() == sorted(differences(), reverse=True)
    page.locator("table[data-filter=classes] th", has_text="class").first.click()
    assert column(page, "classes", 0) == sorted(CLASSES)


def test_words_filter_a_table_and_stay_while_it_is_sorted(page: Any) -> None:
    box = page.get_by_placeholder("filter settings")
    box.fill("recipe")
    assert column(page, "settings", 0) == ["recipe.lr", "recipe.momentum"]
    page.locator("table[data-filter=settings] th", has_text="setting").click()
    page.locator("table[data-filter=settings] th", has_text="setting").click()
    assert column(page, "settings", 0) == ["recipe.momentum", "recipe.lr"]
    assert "2 of 5 shown" in page.locator(".filters", has=box).inner_text()
    box.fill("net drop")
    assert column(page, "settings", 0) == ["net.dropout"]
    box.fill("")
    assert len(column(page, "settings", 0)) == 5


def test_faces_are_chosen_by_label_and_by_who_is_right(page: Any) -> None:
    faces = page.locator(".face:visible")
    everything = faces.count()
    page.locator("select[data-filter=label]").select_option("Happy")
    happy = faces.count()
    assert 0 < happy < everything
    assert all(faces.nth(index).locator("b").inner_text() == "Happy" for index in range(happy))
    page.locator("select[data-filter=right]").select_option("bold")
    assert 0 < faces.count() < happy
    for index in range(faces.count()):
        assert faces.nth(index).locator("p.good").inner_text().startswith("bold: Happy")
    assert page.locator("#faces-shown").inner_text() == f"{faces.count()} of {everything} shown"


def test_on_a_phone_the_page_does_not_scroll_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
