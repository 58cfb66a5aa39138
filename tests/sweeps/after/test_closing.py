"""What a sweep leaves of its own when it ends, in its folder and among its MLflow run's artifacts."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGINT, raise_signal
from threading import Thread
from typing import Any

import numpy as np
import pytest

from fer_models import CompactResNetConfig
from sweeps import SweepResult, run_sweep
from sweeps.after import finish
from sweeps.after.pictures.draw_sweep import draw_sweep
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps import fake_trials
from tests.sweeps.fake_trials import good_body
from tracking.errors import TrackingError
from tracking.record.events import Event, TrialPaused
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder, TrialFolder
from tracking.record.parameters import count_saved

pytestmark = pytest.mark.timeout(120)

Sweep = Callable[..., SweepResult]
ALWAYS = {"leaderboard.csv", "leaderboard.json", "best_curves.png", "timeline.png", "cost.png",
          "optimisation_history.png", "pareto_front.png", "report.html"}  # fmt: skip
SEARCHED = {"parallel_coordinates.png", "slices.png"}
"""Ten trials are too few for importances."""

QUICK = [sys.executable, "-c", ""]
"""A program that does nothing."""

DRAW = """
import sys
from sweeps.after.pictures.draw_sweep import main
sys.argv.insert(1, "draw")
main()
sys.exit(", ".join({"torch", "mlflow", "ray"} & set(sys.modules)) or None)
"""


def answering_body(task: Task) -> Iterator[Message]:
    """As `good_body`, with answers on the fourteen validation faces of the tiny csv, half of them right."""
    labels = np.repeat(np.arange(7, dtype=np.uint8), 2)
    said = np.where(np.arange(14) % 2 == 0, labels, (labels + 1) % 7)
    probabilities = np.full((14, 7), 0.05, np.float32)
    probabilities[np.arange(14), said] = 0.7
    path = TrialFolder(Path(task.folder)).create().val_probabilities
    for message in good_body(task):
        if isinstance(message, EpochReport):
            np.savez(path, probabilities=probabilities, labels=labels, epoch=message.epoch)
        yield message


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> SweepFolder:
    """The folder of a sweep of ten trials, drawn by a process that imports neither torch nor MLflow nor Ray."""
    asked: dict[str, Any] = {"data": str(tiny_csv), "trials": 10, "epochs": 3, "figures": False}
    out = tmp_path_factory.mktemp("drawn")
    unpruned = replace(fake_trials.SPACE, first_rung_epochs=100)
    result = run_sweep(unpruned, body=answering_body, name="night", runner="inline", out=out, **asked)
    assert not result.folder.figures.exists(), "figures=False"
    subprocess.run([sys.executable, "-c", DRAW, str(result.folder.root)], check=True)
    return result.folder


def test_a_sweep_has_its_own_pictures_tables_and_page(drawn: SweepFolder) -> None:
    assert {path.name for path in drawn.figures.iterdir()} == ALWAYS | SEARCHED
    pictures = [path for path in drawn.figures.iterdir() if path.suffix == ".png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    page = (drawn.figures / "report.html").read_text()
    for heading in ("Accuracy and its price", "Parallel coordinates", "Optimisation history"):
        assert f"<h3>{heading}</h3>" in page
    assert len(page) < 5e6


def test_the_leaderboard_says_what_the_journal_says(drawn: SweepFolder) -> None:
    with (drawn.figures / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads((drawn.figures / "leaderboard.json").read_text())
    assert (content["dataset"], content["split"], content["n"], content["synthetic"]) == ("tiny", "val", 14, False)
    best: dict[str, float] = {}
    lines = [json.loads(line) for line in drawn.journal.read_text().splitlines()]
    for line in lines:
        if line["event"] == "epoch":
            number = str(line["trial"])
            best[number] = max(best.get(number, 0.0), line["metrics"]["val_accuracy"])
    assert {row["trial"]: float(row["val_accuracy"]) for row in rows} == best
    assert [float(row["val_accuracy"]) for row in rows] == sorted(best.values(), reverse=True)
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 11)]
    rates = {str(line["trial"]): line["config"]["recipe"]["lr"] for line in lines if line["event"] == "trial"}
    assert {row["trial"]: float(row["recipe.lr"]) for row in rows} == rates
    assert [trial["trial"] for trial in content["trials"]] == [int(row["trial"]) for row in rows]


@pytest.fixture
def closing(sweep: Sweep) -> Sweep:
    """Sweeps that close as they do for a user; the other tests go without."""
    return partial(sweep, at_end=None)


@pytest.mark.long
def test_a_sweep_closes_itself_and_a_resume_mends_what_is_missing(closing: Sweep) -> None:
    asked: dict[str, Any] = {"trials": 2, "epochs": 1, "body": answering_body}
    folder = closing(figures=False, **asked).folder
    page = folder.figures / "report.html"
    assert not page.exists()
    assert closing(resume=True, **asked).notes == (), "a resume keeps figures=False"
    command = f"python -m sweeps register night --out {folder.root.parent}"
    short = f"not registered: its epochs took less than 60 s in all; {command}"
    assert closing(resume=True, figures=True, **asked).notes == (f"report: {page}", short)
    assert {path.name for path in folder.figures.iterdir()} == ALWAYS, "baselines alone: nothing was searched"
    assert "not finished" not in page.read_text()
    first = page.stat().st_mtime_ns
    assert closing(resume=True, figures=True, **asked).notes == (f"report: {page}",)
    assert page.stat().st_mtime_ns == first, "it stands as the journal is"


def test_a_sweep_without_a_finished_trial_says_so(closing: Sweep) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason="nan")

    result = closing(trials=2, epochs=2, body=body)
    assert result.notes == ("no report yet: no trial has finished",)
    assert not result.folder.figures.exists()


def test_a_fault_in_closing_is_one_warning(closing: Sweep, tmp_path: Path) -> None:
    (tmp_path / "runs/night").mkdir(parents=True)
    (tmp_path / "runs/night/figures").write_text("in the way")
    with pytest.warns(UserWarning, match="the report was not written .*python -m sweeps report night --out ") as warned:
        result = closing(trials=2, epochs=1)
    assert len(warned) == 1
    assert (result.exit_code, result.notes) == (0, ())


def test_parameters_are_counted_from_the_file_as_torch_counts_them(tmp_path: Path) -> None:
    import torch

    from fer_models.nets.registry import build, count_parameters
    from fer_models.training.weights import save_weights

    mean_image = np.zeros((48, 48), np.float32)
    net = build(CompactResNetConfig(), classes=7, mean_image=mean_image, generator=torch.Generator())
    save_weights(net, tmp_path / "best.safetensors", {})
    assert count_saved(tmp_path / "best.safetensors") == count_parameters(net)
    assert count_saved(tmp_path / "none.safetensors") is None
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "best.safetensors").read_bytes()[:40])
    assert count_saved(tmp_path / "torn.safetensors") is None


def test_a_sweep_that_never_started_has_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="cannot read the journal"):
        draw_sweep(SweepFolder(tmp_path / "nothing"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_of_two_hundred_trials_names_them_all_in_five_megabytes(sweep: Sweep) -> None:
    folder = sweep(trials=200, epochs=8, body=answering_body).folder
    draw_sweep(folder)
    page = (folder.figures / "report.html").read_bytes()
    assert page.count(b'<td class="settings') == 200
    assert len(page) < 5e6


@pytest.mark.long
@pytest.mark.parametrize("path", [None, "", "/nowhere:"])
def test_the_report_is_drawn_without_the_modules_of_the_working_folder(
    closing: Sweep, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "matplotlib.py").write_text("raise SystemExit('a stranger')")
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path)
    done = closing(trials=1, epochs=1, body=answering_body)
    assert done.notes[0] == f"report: {done.folder.figures / 'report.html'}"


@pytest.mark.long
def test_a_stopped_sweep_whose_trials_wait_at_a_rung_has_a_report(
    closing: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "_HURRIED_SECONDS", 25.0)  # a busy machine takes longer than a person would wait
    space = replace(fake_trials.only_sampled(), pruner="promoting")

    def stopped(event: Event, _: SweepHistory) -> None:
        if isinstance(event, TrialPaused):
            raise_signal(SIGINT)

    result = closing(space=space, trials=3, epochs=3, body=answering_body, listeners=[stopped])
    assert [trial.state for trial in result] == ["waiting"]
    assert result.notes == (f"report: {result.folder.report}",)
    assert "waits at the rung after epoch 1, rank 1 of 1" in result.folder.report.read_text()


@pytest.mark.parametrize("step", ["draw", "publish_best"])
def test_a_signal_during_a_step_at_the_end_soon_ends_it(
    step: str, closing: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's program never ends by itself, and says that it has begun; then the signal comes."""
    begun = tmp_path / "begun"
    slow = [sys.executable, "-c", f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(600)"]
    monkeypatch.setattr(finish, "_LEAST_TRAINED_SECONDS", 0.0)
    monkeypatch.setattr(finish, "_HURRIED_SECONDS", 0.5)
    monkeypatch.setattr(finish, "command", lambda module, task, *rest: slow if task == step else QUICK)

    def interrupt() -> None:
        while not begun.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), SIGINT)

    Thread(target=interrupt, daemon=True).start()
    with pytest.warns(UserWarning, match="it was not ready 0 s after the signal"):
        result = closing(trials=1, epochs=1, body=answering_body)
    assert result.exit_code == 130
    assert result.history.finished, "its trials are complete"
