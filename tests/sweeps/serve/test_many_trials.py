"""The page of a sweep with more trials than it shows at once, and what the server works out for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from sweeps.serve import living
from sweeps.serve.guard import guard_for
from sweeps.serve.living import AllLiving, Living
from tests.benchmarks.many_trials import many_trials
from tests.sweeps.serve.conftest import Served
from tracking.record.events import EpochDone
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

TRIALS = 450

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return many_trials(tmp_path_factory.mktemp("many"), TRIALS)


def test_a_report_is_shown_at_once_and_the_summary_in_a_tenth_of_the_time(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "_CHEAP_SECONDS", 0)
    monkeypatch.setattr(living, "_SHARE", 1e-9)
    one = Living(folder)
    first = one.state()
    assert (len(first["trials"]), first["summary"]["digest"]["trials"]["running"]) == (TRIALS, 1)
    with Journal.open(folder.journal) as journal:
        journal.append(EpochDone(trial=TRIALS - 1, epoch=1, metrics={"val_accuracy": 0.99, "epoch_seconds": 1.0}))
    second = one.state(since=first["version"])
    assert [(trial["number"], trial["best"]) for trial in second["trials"]] == [(TRIALS - 1, 0.99)]
    assert second["summary"] == first["summary"]
    monkeypatch.setattr(one, "_due", 0)
    third = one.state(since=second["version"])
    assert third["version"] > second["version"]
    assert (third["trials"], third["summary"]["digest"]["best"]["value"]) == ([], 0.99)


def test_a_sweep_stays_in_memory_while_it_is_used_or_watched(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = AllLiving(folder.root.parent)
    watching = known.get("many")
    assert watching is not None
    first = ref(watching)
    assert not known.drop_unused()
    monkeypatch.setattr(living, "_UNUSED_SECONDS", 0)
    assert not known.drop_unused(), "a page watches it"
    assert known.get("many") is watching
    del watching
    assert first() is not None
    assert known.drop_unused()
    assert first() is None
    assert not known.drop_unused()
    watching = known.get("many")
    assert not known.drop_unused()
    del watching
    assert known.drop_unused(), "the page that watched it was closed"


def test_a_page_of_many_trials_shows_some_and_says_which(browser: Any, folder: SweepFolder, tmp_path: Path) -> None:
    with Served(folder.root.parent, guard_for("127.0.0.1", [], tmp_path / "none")) as served:
        page = browser.new_page()
        page.goto(f"{served.url}/sweeps/many")
        rows = page.locator("#trials tbody tr")
        rows.nth(199).wait_for()
        assert rows.count() == 200
        assert page.inner_text("#drawn-about").startswith("The 100 best and the 100 latest of 4")
        page.get_by_label("Draw all").check()
        page.get_by_role("button", name="Show more").click()
        rows.nth(399).wait_for()
        page.fill("#search", f"{TRIALS - 1} running")
        rows.nth(1).wait_for(state="detached")
        assert rows.count() == 1
        assert page.get_by_role("button", name="Show more").is_hidden()
        page.close()
