"""`python -m sweeps list`: every sweep of a folder, as a table and as JSON."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.cli.main import main
from sweeps.cli.progress import Progress
from sweeps.driver.acts import Acts
from sweeps.serve.living import Living
from sweeps.trial.messages import TrialEnd
from tests.sweeps.fake_trials import SPACE, only_sampled, open_desk, report, spec, take_all
from tracking.record.events import DriverStopped
from tracking.record.folder_lock import hold_folder
from tracking.record.inbox import Request
from tracking.record.journal import Journal


def listed(capsys: pytest.CaptureFixture[str], out: Path) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["list", "--out", str(out), "--json"]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def without_its_end(journal: Path) -> None:
    journal.write_bytes(b"".join(line for line in journal.read_bytes().splitlines(True) if b'"finished"' not in line))


def test_states_owner_trials_and_best(run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--trials", "2") == 0
    for name in ("crash", "living", "halted", "broken"):
        shutil.copytree(out / "night", out / name)
        without_its_end(out / name / "journal.jsonl")
    with Journal.open(out / "halted/journal.jsonl") as journal:
        journal.append(DriverStopped(reason="stopped by SIGINT"))
    (out / "broken/journal.jsonl").write_text('{"event":"what"}\n{}\n')
    with hold_folder(out / "living"):
        rows = listed(capsys, out)
        assert main(["list", "--out", str(out)]) == 0
        table = capsys.readouterr().out
        assert main(["status", "living", "--out", str(out)]) == 0
        assert "sweep night: running on " in capsys.readouterr().out
    states = {row["name"]: row["state"] for row in rows}
    assert states == {
        "living": "running",
        "night": "finished",
        "crash": "crashed",
        "halted": "stopped",
        "broken": "unreadable",
    }
    assert rows[0]["name"] == "living"
    night = next(row for row in rows if row["name"] == "night")
    assert night["trials"] == {"done": 2}
    assert night["asked"] == 2
    best = night["best"]
    assert isinstance(best, dict)
    assert 0 < best["value"] < 1
    assert table.splitlines()[0].split() == [
        "sweep", "state", "owner", "trials", "best", "val_accuracy", "slots", "priority", "left"
    ]  # fmt: skip
    assert main(["status", "halted", "--out", str(out)]) == 0
    assert "stopped (stopped by SIGINT)" in capsys.readouterr().out


def test_sweeps_of_others_are_listed_with_their_owners(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--trials", "1")
    (out / "private").mkdir(mode=0o700)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "private")  # root may enter any
    rows = {str(row["name"]): row for row in listed(capsys, out)}
    assert (rows["private"]["state"], rows["private"]["fault"]) == ("unreadable", "closed to other users")
    assert rows["private"]["owner"] == rows["night"]["owner"]
    assert set(rows) == {"night", "private"}


@pytest.mark.usefixtures("run")
def test_a_sweep_that_draws_its_last_pictures_does_not_wait(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = open_desk(out / "night", only_sampled(first_rung_epochs=9), spec(trials=1))
    with hold_folder(out / "night"):
        assert [row["state"] for row in listed(capsys, out)] == ["waiting"]
        take_all(held, held.task(), [0.1, 0.2, 0.3])
        assert [row["state"] for row in listed(capsys, out)] == ["running"]
        held.director.take(0, TrialEnd(attempt=0, state="ended"))
        assert [row["state"] for row in listed(capsys, out)] == ["running"]


@pytest.mark.usefixtures("run")
def test_a_sweep_that_was_paused_says_by_whom_and_how_it_continues(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = open_desk(out / "night", SPACE, spec(trials=2))
    task = held.director.next_task()
    assert task
    acts = Acts(held.folder, SPACE, 4)
    acts.perform(held.director, Request(verb="pause", who="ana@here", asked_ms=1_800_000_000_000))
    held.director.take(0, report(task, 1))
    words = f"paused by ana@here at {time.strftime('%Y-%m-%d %H:%M', time.localtime(1_800_000_000))}; unpause night"
    table = Console(width=160, record=True)
    table.print(Progress(table, held.director.spec)._draw(held.director.history))
    assert words in table.export_text()
    with hold_folder(out / "night"):
        (row,) = listed(capsys, out)
        assert (row["state"], row["why"], row["held_by"]) == ("paused", words, "ana@here")
        assert main(["list", "--out", str(out)]) == 0
        assert words in " ".join(capsys.readouterr().out.split())
        assert main(["status", "night", "--out", str(out)]) == 0
        assert f"sweep night: {words}" in " ".join(capsys.readouterr().out.split())
        seen = Living(held.folder).state()
        assert (seen["summary"]["why"], seen["trials"][0]["reason"]) == (
            words,
            "paused by ana@here, as the whole sweep",
        )
        assert not acts.perform(held.director, Request(verb="unpause")).refused
        assert [row["state"] for row in listed(capsys, out)] == ["waiting"]
        assert Living(held.folder).state()["trials"][0]["reason"] == "waits for a slot"


@pytest.mark.parametrize("more", [["--trials", "+1"], ["--epochs", "+3"]])
def test_a_finished_sweep_with_more_to_do_is_stopped(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert run("--trials", "1") == 0
    state = out / "night/trials/0000/lasting/last.safetensors"
    state.parent.mkdir()
    about = json.dumps({"__metadata__": {"state": json.dumps({"epoch": 3})}}).encode()
    state.write_bytes(len(about).to_bytes(8, "little") + about)
    assert main(["extend", "night", *more, "--out", str(out)]) == 0
    (row,) = listed(capsys, out)
    assert (row["state"], row["finished"]) == ("stopped", False)
    assert str(row["stopped"]).startswith("more to do since extend by ")


def test_a_journal_that_has_grown_is_read_again(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--trials", "1") == 0
    assert [row["asked"] for row in listed(capsys, out)] == [1]
    assert run("--trials", "2", "--resume") == 0
    assert [row["asked"] for row in listed(capsys, out)] == [2]
    (out / ".list.json").write_text("of another version")
    assert [row["asked"] for row in listed(capsys, out)] == [2]


def test_200_sweeps_are_listed_in_a_second(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--trials", "4") == 0
    for number in range(199):
        (out / f"more-{number}").mkdir()
        shutil.copy(out / "night/journal.jsonl", out / f"more-{number}")
    assert len(listed(capsys, out)) == 200
    began = time.process_time()
    assert len(listed(capsys, out)) == 200
    assert time.process_time() - began < 1


def test_an_empty_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"no sweep in {out}\n"
    assert listed(capsys, out) == []
