"""The page of a sweep in a real browser while the sweep changes, and while the server is away."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from sweeps.serve.guard import Guard
from sweeps.serve.living import Living
from tests.sweeps.serve.conftest import Served, unfinished
from tracking.record.events import (
    AttemptStarted,
    DriverStarted,
    DriverStopped,
    EpochDone,
    Group,
    TrialEnded,
    TrialPaused,
    TrialStarted,
)
from tracking.record.folder_lock import hold_folder
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened, faults = browser.new_page(), []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    yield opened
    opened.close()
    assert faults == []


def report(journal_file: Path, epoch: int, accuracy: float) -> None:
    with Journal.open(journal_file) as journal:
        journal.append(EpochDone(trial=0, epoch=epoch, metrics={"val_accuracy": accuracy, "epoch_seconds": 1.0}))


def start_again(journal_file: Path) -> None:
    with Journal.open(journal_file) as journal:
        journal.append(
            DriverStarted(host="here", pid=1, versions={}), AttemptStarted(trial=0, attempt=1, reason="resumed")
        )


def shown(page: Any, percent: str) -> Any:
    """The best accuracy in the table's only row."""
    return page.locator("#trials td:nth-child(4)", has_text=percent)


def test_an_update_takes_neither_focus_nor_what_was_typed(page: Any, server: Served, out: Path) -> None:
    journal_file = unfinished(out, "watched")
    start_again(journal_file)
    page.goto(f"{server.url}/sweeps/watched")
    page.get_by_role("button", name="fork trial 0").focus()
    page.locator("form[data-verb=set] input").evaluate("input => { input.value = '7'; }")
    report(journal_file, 3, 0.875)
    shown(page, "87.5").wait_for()
    assert page.evaluate("document.activeElement.ariaLabel") == "fork trial 0"
    assert page.locator("form[data-verb=set] input").input_value() == "7"


@pytest.mark.parametrize(("focused", "then"), [("stop trial 0", "stop trial 0"), ("pause trial 0", None)])
def test_the_focus_stays_in_the_row_of_a_trial_whose_acts_change(
    page: Any, server: Served, out: Path, focused: str, then: str | None
) -> None:
    """On the same act, or on the row itself: another act must not take its keys."""
    name = focused.replace(" ", "_")
    journal_file = unfinished(out, name)
    start_again(journal_file)
    page.goto(f"{server.url}/sweeps/{name}")
    page.get_by_role("button", name=focused).focus()
    with Journal.open(journal_file) as journal:
        journal.append(TrialPaused(trial=0, epoch=2, reason="person"))
    page.get_by_role("button", name="continue trial 0").wait_for()
    act, is_in_row = page.evaluate("[document.activeElement.ariaLabel, !!document.activeElement.closest('tr')]")
    assert (act, is_in_row) == (then, True)


def test_a_trial_that_is_over_offers_no_act(page: Any, server: Served, out: Path) -> None:
    journal_file = unfinished(out, "given_up")
    start_again(journal_file)
    page.goto(f"{server.url}/sweeps/given_up")
    fork = page.get_by_role("button", name="fork trial 0")
    fork.wait_for()
    with Journal.open(journal_file) as journal:
        journal.append(TrialEnded(trial=0, state="stopped", reason="stopped by hand", epochs=2))
    fork.wait_for(state="detached")
    assert page.locator("#trials td button").count() == 0


def test_a_page_says_that_the_server_is_away_and_catches_up_with_the_next_one(page: Any, out: Path) -> None:
    journal_file = unfinished(out, "returned")
    start_again(journal_file)
    guard = Guard(frozenset({"127.0.0.1"}), None)
    with Served(out, guard) as first:
        page.goto(f"{first.url}/sweeps/returned")
        for epoch in range(3, 6):  # so that its versions are beyond those of the next server
            report(journal_file, epoch, 0.9 + epoch / 100)
            shown(page, f"{90 + epoch}.0").wait_for()
    page.locator("#lost", has_text="The server does not answer").wait_for()
    report(journal_file, 6, 0.975)
    with Served(out, guard, port=first.port):
        shown(page, "97.5").wait_for()
        assert not page.locator("#lost").is_visible()


def test_a_page_of_an_earlier_server_is_sent_all_trials(out: Path) -> None:
    folder = SweepFolder(unfinished(out, "earlier").parent)
    earlier = Living(folder)
    start_again(folder.journal)
    seen = earlier.state()["version"]
    report(folder.journal, 3, 0.875)
    (trial,) = Living(folder).state(since=seen)["trials"]
    assert trial["best"] == 0.875


def test_a_sweep_that_replaces_another_of_its_name_is_shown_alone(page: Any, server: Served, out: Path) -> None:
    """The new one has one trial of number 1, in a longer journal than the old one, whose trial has number 0."""
    journal_file = unfinished(out, "replaced")
    living = Living(SweepFolder(out / "replaced"))
    assert [trial["number"] for trial in living.state()["trials"]] == [0]
    seen = living.version
    page.goto(f"{server.url}/sweeps/replaced")
    first_cell = page.locator("#trials tbody td:first-child")
    first_cell.get_by_text("0").wait_for()
    opening = json.loads(journal_file.read_text().splitlines()[0]) | {"sweep_id": "ab" * 16}
    started = TrialStarted(trial=1, config_id="c" * 99_999, config={}, seed=1, epochs=1)
    other = journal_file.with_name("other")
    other.write_text(f"{json.dumps(opening)}\n{started.model_dump_json()}\n")
    assert other.stat().st_size > journal_file.stat().st_size
    other.rename(journal_file)
    state = living.state(since=seen)
    assert (state["sweep_id"], [trial["number"] for trial in state["trials"]]) == ("ab" * 16, [1])
    first_cell.get_by_text("1").wait_for()
    assert first_cell.count() == 1


def test_an_epoch_without_a_finite_accuracy_has_no_point_on_the_curve(server: Served, out: Path) -> None:
    journal_file = unfinished(out, "infinite")
    report(journal_file, 3, math.nan)
    report(journal_file, 4, 0.875)
    answer = requests.get(f"{server.url}/api/v1/sweeps/infinite", timeout=60)
    assert answer.status_code == 200
    (trial,) = answer.json()["trials"]
    assert [epoch for epoch, _ in trial["curve"]] == [1, 2, 4]


def test_a_journal_that_becomes_unreadable_is_said_on_the_page(page: Any, server: Served, out: Path) -> None:
    journal_file = unfinished(out, "damaged")
    page.goto(f"{server.url}/sweeps/damaged")
    page.locator("#trials tbody tr").wait_for()
    with journal_file.open("a") as file:
        file.write('{"event":"epoch","unknown":1}\n')
    page.locator("#lost", has_text="not an event this version knows").wait_for()


@pytest.mark.parametrize(
    ("reason", "state", "verbs"), [("share", "stopped", ["resume"]), ("person", "paused", ["unpause", "resume"])]
)
def test_a_sweep_without_a_driver_says_how_it_continues(
    page: Any, server: Served, out: Path, reason: Any, state: str, verbs: list[str]
) -> None:
    """Only if a person paused what is left is the sweep paused; a resume alone would then do nothing."""
    journal_file = unfinished(out, reason)
    start_again(journal_file)
    with Journal.open(journal_file) as journal:
        journal.append(TrialPaused(trial=0, epoch=2, reason=reason), DriverStopped(reason="its driver died"))
    page.goto(f"{server.url}/sweeps/{reason}")
    commands = " and then ".join(f"python -m sweeps {verb} {reason} --out {out}" for verb in verbs)
    line = page.locator("#line", has_text=f"; its driver died; continue it with: {commands}")
    line.wait_for()
    assert line.inner_text().startswith(f"{state};")
    assert page.get_by_role("button", name="Continue", exact=True).is_enabled() == (state == "paused")
    assert page.get_by_role("button", name="Pause", exact=True).get_attribute("title")
    assert page.get_by_role("button", name="continue trial 0").is_enabled()


def test_an_act_without_undo_is_confirmed_first(page: Any, server: Served) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    page.goto(f"{server.url}/sweeps/night")
    page.fill("form[data-verb=try] input", "lr=0.02")
    page.get_by_role("button", name="Try", exact=True).click()
    assert asked == ["Train a new trial like the best one, but with lr=0.02?"]


def test_sweeps_are_in_the_order_of_their_best(page: Any, out: Path, tmp_path: Path) -> None:
    """Accuracies with few and with many digits, which a comparison of texts confuses."""
    shutil.copytree(out / "night", tmp_path / "night")
    for name, accuracy in (("lower", 0.9490476190476191), ("higher", 0.95)):
        report(unfinished(tmp_path, name), 3, accuracy)
    with Served(tmp_path, Guard(frozenset({"127.0.0.1"}), None)) as served:
        page.goto(served.url)
        for names in (["lower", "higher"], ["higher", "lower"]):
            page.get_by_role("button", name="Best").click()
            shown_names = page.locator("#sweeps tbody tr td:first-child").all_inner_texts()
            assert [name for name in shown_names if name != "night"] == names


def test_what_continues_trials_that_persons_paused_is_confirmed_and_names_them(
    page: Any, server: Served, out: Path
) -> None:
    journal_file = unfinished(out, "two_pauses")
    start_again(journal_file)
    with Journal.open(journal_file) as journal:
        journal.append(TrialPaused(trial=0, epoch=2, reason="person", who="ana"))
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.route("**/acts", lambda route: route.fulfill(json={"answer": "done"}))
    with hold_folder(out / "two_pauses"):
        page.goto(f"{server.url}/sweeps/two_pauses")
        page.locator("#trials .chip.paused").wait_for()
        page.get_by_role("button", name="Pause", exact=True).click()
        page.get_by_role("button", name="Undo").click()
    assert asked == ["Continue the sweep two_pauses? The trials that persons paused continue too: 0."]


def test_trials_in_groups_are_in_the_order_of_their_means(page: Any, server: Served, out: Path) -> None:
    """Groups of 99 and 40 %, and of 95 and 85 %: the second one is the better, though it has not the best trial."""
    journal_file = unfinished(out, "grouped")
    with Journal.open(journal_file) as journal:
        journal.append(TrialEnded(trial=0, state="done", epochs=2))
        for trial, accuracy in enumerate((0.99, 0.4, 0.95, 0.85), start=1):
            first = 1 if trial < 3 else 3
            group = Group(first=first, member=trial - first, size=2)
            journal.append(
                TrialStarted(trial=trial, config_id=f"c{first}", config={}, seed=trial, epochs=1, group=group),
                EpochDone(trial=trial, epoch=1, metrics={"val_accuracy": accuracy, "epoch_seconds": 1.0}),
                TrialEnded(trial=trial, state="done", epochs=1),
            )
    page.goto(f"{server.url}/sweeps/grouped")
    page.locator("#best", has_text="90.0").wait_for()
    page.locator("#best-about", has_text="mean of 2, the best is trial 3").wait_for()
    rows = page.locator("#trials tbody tr")
    rows.nth(4).wait_for()
    texts = [row.replace("\u00a0", " ").split("\t") for row in rows.all_inner_texts()]
    first_two = [(row[0], row[3], row[4]) for row in texts[:2]]
    assert first_two == [("3", "95.0 %", "90.0 % of 2"), ("4", "85.0 %", "90.0 % of 2")]
    page.get_by_role("button", name="Best").click()
    assert rows.first.inner_text().split("\t")[0] == "1"


def test_a_name_that_is_markup_is_shown_as_text(page: Any, out: Path, server: Served) -> None:
    name = "<img src=x onerror=alert(1)>"
    journal_file = unfinished(out, name)
    start_again(journal_file)
    dialogs: list[Any] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog))
    page.goto(server.url)
    page.get_by_role("link", name=name).click()
    page.locator("#trials tbody tr").wait_for()
    assert (page.inner_text("h1"), dialogs) == (name, [])
    assert page.locator("img").count() == 0


def test_a_sweep_whose_trials_wait_has_a_driver(out: Path) -> None:
    journal_file = unfinished(out, "waits")
    journal_file.write_text(journal_file.read_text().replace('"trials":1', '"trials":9'))
    assert not Living(SweepFolder(out / "waits")).read_so_far()[2]
    start_again(journal_file)
    with Journal.open(journal_file) as journal:
        journal.append(TrialPaused(trial=0, epoch=2, reason="rung"))
    with hold_folder(out / "waits"):
        living = Living(SweepFolder(out / "waits"))
        summary = living.summary()
        assert summary is not None
        assert summary["state"] == "waiting"
        assert living.read_so_far()[2]


def test_the_bars_of_a_killed_sweep_end_with_its_last_record(page: Any, server: Served, out: Path) -> None:
    journal_file = unfinished(out, "bars")
    hours_ago = [json.loads(line) for line in journal_file.read_text().splitlines()]
    for place, event in enumerate(hours_ago):
        event["time_ms"] += place * 1000 - 2 * 3_600_000  # the shortest timeline that is drawn is a second
    journal_file.write_text("".join(json.dumps(event) + "\n" for event in hours_ago))
    page.goto(f"{server.url}/sweeps/bars")
    about = page.locator("#timeline-about", has_text="from")
    about.wait_for()
    end = page.evaluate("ms => new Date(ms).toLocaleTimeString()", hours_ago[-1]["time_ms"])
    assert f" to {end}:" in about.inner_text()


def test_a_trial_whose_driver_was_killed_has_no_worker_until_its_next_attempt(out: Path) -> None:
    journal_file = unfinished(out, "killed")
    living = Living(SweepFolder(out / "killed"))

    def end_of_work() -> int | None:
        (trial,) = living.state()["trials"]
        return trial["spans"][-1][1]  # type: ignore[no-any-return]

    start_again(journal_file)
    assert end_of_work() is None
    with Journal.open(journal_file) as journal:
        journal.append(DriverStarted(host="here", pid=1, versions={}))
    assert end_of_work() is not None
