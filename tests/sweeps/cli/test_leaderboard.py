import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from sweeps.cli.tables.leaderboard import leaderboard
from sweeps.spec import SweepSpec
from tests.sweeps.fake_trials import config, metrics, spec
from tracking.record.events import EpochDone, Event, SweepStarted, TrialEnded, TrialStarted
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

LABELS = np.zeros(100, dtype=np.uint8)


def trial(number: int, accuracies: list[float], state: str = "done", baseline: str | None = None) -> list[Event]:
    content = config(lr=0.01 * (number + 1)).model_dump(mode="json")
    ended = {"trial": number, "state": state, "epochs": len(accuracies)}
    return [
        TrialStarted(
            trial=number, config_id="0", config=content, seed=1, epochs=max(len(accuracies), 1), baseline=baseline
        ),
        *(EpochDone(trial=number, epoch=e, metrics=metrics(value)) for e, value in enumerate(accuracies, start=1)),
        TrialEnded.model_validate(ended),
    ]


def answer(folder: SweepFolder, number: int, right: np.ndarray, epoch: int) -> None:
    """Keep the probabilities of 100 faces, all of class 0, of which those in `right` are seen rightly."""
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.2, 0.8]).astype(np.float32)
    path = folder.trial(number).create().root / "val_probabilities.npz"
    np.savez_compressed(path, probabilities=probabilities, labels=LABELS, epoch=epoch)


def faces(*ranges: range) -> np.ndarray:
    chosen = np.zeros(100, dtype=bool)
    for part in ranges:
        chosen[part] = True
    return chosen


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "night").create()


def shown(folder: SweepFolder, *trials: list[Event], asked: SweepSpec | None = None) -> list[str]:
    opening = SweepStarted(sweep_id="0" * 32, name="night", space="fake_space", spec={})
    history = SweepHistory.replay([opening, *(event for one in trials for event in one)])
    text = io.StringIO()
    Console(file=text, width=200, highlight=False).print(
        leaderboard(history, asked or spec(baselines={"first report": "50 %", "second report": ""}), folder)
    )
    return text.getvalue().splitlines()


def cells(lines: list[str], name: str) -> list[str]:
    (row,) = [line for line in lines if f" {name} " in line]
    return [cell.strip() for cell in row.strip()[1:-1].split("│")]


def test_a_row_by_hand(folder: SweepFolder) -> None:
    answer(folder, 0, faces(range(0, 50)), epoch=2)
    answer(folder, 1, faces(range(0, 40), range(50, 70)), epoch=1)
    lines = shown(folder, trial(0, [0.4, 0.5, 0.5], baseline="first report"), trial(1, [0.6, 0.55], state="pruned"))
    # Wilson (1927): 60 of 100 and 50 of 100. Both right on 40, the trial alone on 20, the baseline alone on 10:
    # Newcombe (1998, paired, method 10): phi = (40 * 30 - 20 * 10 - 50) / sqrt(60 * 40 * 50 * 50) = 0.3878,
    # 0.1 - sqrt(0.0980^2 - 2 * 0.3878 * 0.0980 * 0.0962 + 0.0962^2) = -0.007,
    # 0.1 + sqrt(0.0906^2 - 2 * 0.3878 * 0.0906 * 0.0962 + 0.0962^2) = 0.203.
    assert cells(lines, "1 lenet") == [
        "1", "1 lenet", "pruned", "1 of 2", "60.00%", "50.2% to 69.1%", "+10.0 (-0.7 to +20.3)", "sgd lr 0.02, batch 2, constant",
    ]  # fmt: skip
    assert cells(lines, "0 first report") == [
        "2", "0 first report", "done", "2 of 3", "50.00%", "40.4% to 59.6%", "best baseline", "sgd lr 0.01, batch 2, constant",
    ]  # fmt: skip


def test_the_table_names_data_split_and_reports(folder: SweepFolder) -> None:
    lines = shown(folder, trial(0, [0.5], baseline="first report"))
    assert "night: best epoch of each trial on synthetic faces, val" in lines[0]
    text = "\n".join(lines)
    assert "reported: first report: 50 %" in text
    assert "to first report" in text
    real = shown(folder, trial(0, [0.5]), asked=spec().model_copy(update={"dataset": "FER2013"}))
    assert "FER2013, PublicTest (val)" in real[0]
    folds = spec(folds=5, baselines={}).model_copy(update={"dataset": "FER2013"})
    assert "FER2013, val" in shown(folder, trial(0, [0.5]), asked=folds)[0], "a fold of train and val is not PublicTest"


def test_the_rival_is_the_best_baseline(folder: SweepFolder) -> None:
    lines = shown(
        folder,
        trial(0, [0.4], baseline="first report"),
        trial(1, [0.5], baseline="second report"),
        trial(2, [0.3]),
    )
    assert cells(lines, "1 second report")[6] == "best baseline"
    assert cells(lines, "0 first report")[6] != "best baseline"
    assert [cells(lines, name)[0] for name in ("1 second report", "0 first report", "2 lenet")] == ["1", "2", "3"]


def test_a_short_baseline_says_so_and_no_difference_to_it_is_given(folder: SweepFolder) -> None:
    answer(folder, 0, faces(range(50)), epoch=1)
    answer(folder, 1, faces(range(60)), epoch=1)
    lines = shown(folder, trial(0, [0.5], baseline="first report"), trial(1, [0.6, 0.5, 0.5]))
    assert cells(lines, "0 first report")[6] == "short: 1 of 3 epochs"
    assert cells(lines, "1 lenet")[6] == ""
    text = "\n".join(lines)
    assert "no difference to it is given" in text
    assert "differences in points" not in text


def test_a_baseline_whose_schedule_is_scaled_is_said_to_be(folder: SweepFolder) -> None:
    content = config().model_dump(mode="json")
    content["recipe"] |= {"schedule": "scaled", "reference_iterations": 50_000}
    events = trial(0, [0.5, 0.4], baseline="first report")
    events[0] = events[0].model_copy(update={"config": content, "report_epochs": 174})
    lines = shown(folder, events, trial(1, [0.3]))
    assert "first report: 2 of the report's 174 epochs, its schedule scaled" in "\n".join(lines)
    assert cells(lines, "0 first report")[6] == "best baseline"


def test_ties_stand_in_the_order_of_their_numbers(folder: SweepFolder) -> None:
    lines = shown(folder, trial(1, [0.5]), trial(0, [0.5]))
    assert [cells(lines, name)[0] for name in ("0 lenet", "1 lenet")] == ["1", "2"]


def test_a_trial_without_an_epoch_stands_below_without_a_rank(folder: SweepFolder) -> None:
    lines = shown(folder, trial(0, [], state="failed"), trial(1, [0.1]))
    assert cells(lines, "0 lenet")[:4] == ["", "0 lenet", "failed", "0"]


def test_more_than_fifteen_are_cut_and_it_is_said(folder: SweepFolder) -> None:
    lines = shown(folder, *(trial(number, [number / 100]) for number in range(16)))
    assert "the best 15 of 16" in "\n".join(lines)
    assert not [line for line in lines if " 0 lenet " in line]
    assert cells(lines, "15 lenet")[0] == "1"


@pytest.mark.parametrize("kind", ["absent", "of another epoch", "empty", "cut short", "not a zip"])
def test_without_the_answers_of_the_best_epoch_there_is_no_interval(folder: SweepFolder, kind: str) -> None:
    answer(folder, 0, faces(range(50)), epoch=1)
    answer(folder, 1, faces(range(60)), epoch=2 if kind == "of another epoch" else 1)
    path = folder.trial(1).val_probabilities
    whole = path.read_bytes()
    if kind == "absent":
        path.unlink()
    elif kind != "of another epoch":
        path.write_bytes({"empty": b"", "cut short": whole[: len(whole) // 2], "not a zip": b"nothing"}[kind])
    lines = shown(folder, trial(0, [0.5], baseline="first report"), trial(1, [0.6, 0.5]))
    assert cells(lines, "1 lenet")[4:7] == ["60.00%", "", ""]
    assert cells(lines, "0 first report")[5] == "40.4% to 59.6%"


def test_a_name_with_brackets_is_shown_as_it_is(folder: SweepFolder) -> None:
    lines = shown(folder, trial(0, [0.5]), asked=spec().model_copy(update={"dataset": "faces[old]"}))
    assert "on faces[old], val" in lines[0]
