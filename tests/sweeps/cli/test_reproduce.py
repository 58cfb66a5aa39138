"""`sweeps reproduce`: the table of rows, one of them trained, and the summary of docs/results.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.cli.main import main
from sweeps.cli.reproduce import accuracies
from sweeps.spaces.find import find_space
from sweeps.spaces.rows import ROWS, Row
from tests import ROOT
from tests.sweeps.fake_trials import refused
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]
PAGE = (ROOT / "docs/results.md").read_text()


def summary_line(name: str, row: Row) -> str:
    """The row as docs/results.md has it."""
    ours = row.ours
    clean = [] if ours is None else [ours.public_leak_free, ours.private_leak_free]
    leak_free = " / ".join(f"{value:.2f}" for value in clean if value is not None)
    epochs = (ours and ours.epochs) or f"{row.epochs} to run"
    minutes = f"{ours.minutes:g}, {ours.machine}" if ours and ours.minutes else ""
    cells = [f"`{name}`", row.title(), row.published, accuracies(ours), leak_free, row.best, epochs, minutes]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


@pytest.mark.parametrize("name", ROWS)
def test_the_results_page_begins_with_the_rows_of_the_table(name: str) -> None:
    summary = PAGE[: PAGE.index("\n## The compact residual net")]
    assert summary_line(name, ROWS[name]) in summary


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_a_space_of_its_one_configuration(name: str) -> None:
    space, row = find_space(name), ROWS[name]
    assert (space.trials, space.max_epochs, len(space.baselines)) == (1, row.epochs, 1)
    made = space.baselines[0]
    assert made.epochs_in(space.max_epochs) == row.epochs
    assert ("changed" in made.name) == bool(row.settings), "a row with other settings does not bear the report's name"


def test_the_rows_are_listed_with_the_report_s_number_and_ours(capsys: Capture) -> None:
    assert main(["reproduce"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in ROWS if f" {name} " not in shown] == []
    assert "53.12 %" in shown
    assert "54.14 / 52.33 %" in shown


def test_an_unknown_row(out: Path, capsys: Capture) -> None:
    message = refused(capsys, lambda: main(["reproduce", "lenet_stp_8", "--out", str(out)]))
    assert message.startswith("unknown row 'lenet_stp_8'; did you mean 'lenet_step_8'?")
    assert not out.exists()


@pytest.mark.usefixtures("no_mlflow")
def test_a_row_is_trained_and_set_against_the_report(out: Path, capsys: Capture) -> None:
    words = ["reproduce", "happy_sad_48", "--quick", "--out", str(out)]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "78.27 %, validation of its own split" in first
    assert "this sweep, synthetic faces, val" in first
    assert "1 of 1; the row has 10" in first
    history = SweepHistory.load(out / "happy_sad_48-quick" / "journal.jsonl")
    assert history.started.spec["space"] == "happy_sad_48"
    assert history.trials[0].started.baseline == "happy or sad (R/Keras report)"
    assert history.started.spec["classes"] == ["Happy", "Sad"]
    assert main(words) == 0, "the same command continues, or finds it finished"
    assert "this sweep is finished" in capsys.readouterr().out
    journal = out / "happy_sad_48-quick/journal.jsonl"
    lines = journal.read_text().splitlines()
    tested = '{"event":"tested","trial":0,"look":1,"metrics":{"test_accuracy":0.25},"time_ms":1}'
    epoch = next(place for place, line in enumerate(lines) if '"event":"epoch"' in line)
    for place, caption in (
        (len(lines), "test split, evaluated once: 25.00%"),
        (epoch, "evaluated before it found this epoch; once more: python -m sweeps test happy_sad_48-quick/0 --out"),
    ):
        journal.write_text("\n".join([*lines[:place], tested, *lines[place:]]) + "\n")
        assert main(words) == 0
        assert caption in " ".join(capsys.readouterr().out.split())
