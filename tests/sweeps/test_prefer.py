"""Which trial is a sweep's winner: the best, or with `--prefer` the cheapest of those within noise of it."""

import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sweeps import InputError, SweepResult
from sweeps.after.pictures.draw_sweep import draw_sweep
from sweeps.cli.main import main
from sweeps.cli.progress import best_line
from sweeps.runs import best_runs, find_run
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import metrics, only_sampled
from tracking.metrics.compare_sweeps import sweep_summary
from tracking.metrics.winner import winner_of
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.upkeep import opened
from tracking.record.history import SweepHistory
from tracking.record.inbox import Request, post
from tracking.record.layout import SweepFolder, TrialFolder

Sweep = Callable[..., SweepResult]

FACES = 14
TRIALS: dict[int, tuple[range, float, float]] = {
    0: (range(12), 1e6, 4.0),  # the best
    1: (range(1, 12), 5e4, 9.0),  # within noise, the smallest
    2: (range(2, 13), 9e5, 1.0),  # within noise, the fastest
    3: (range(2), 10.0, 0.1),  # cheap, and worse
}
"""Trial -> the faces that it predicts right, its parameters, and its seconds per epoch."""


def priced(task: Task) -> Iterator[Message]:
    right, parameters, seconds = TRIALS[task.trial]
    folder = TrialFolder(Path(task.folder))
    is_right = np.isin(np.arange(FACES), right)
    probabilities = np.where(is_right[:, None], [0.7, *[0.05] * 6], [0.1, 0.4, *[0.1] * 5]).astype(np.float32)
    labels = np.zeros(FACES, np.uint8)
    np.savez_compressed(folder.root / "val_probabilities.npz", probabilities=probabilities, labels=labels, epoch=1)
    folder.best.write_bytes(b"weights")
    yield EpochReport(attempt=task.attempt, epoch=1, metrics=metrics(len(right) / FACES, seconds))
    yield TrialEnd(attempt=task.attempt, state="ended", scores={"parameters": parameters})


def priced_sweep(sweep: Sweep, **more: Any) -> SweepResult:
    space = only_sampled(first_rung_epochs=2)
    return sweep(**{"space": space, "body": priced, "trials": 4, "epochs": 1, "figures": False, **more})


@pytest.mark.parametrize(("prefer", "chosen"), [(None, 0), ("smaller", 1), ("faster", 2)])
def test_the_cheapest_within_noise_stands_for_the_sweep(
    sweep: Sweep, out: Path, prefer: str | None, chosen: int, capsys: pytest.CaptureFixture[str]
) -> None:
    done = priced_sweep(sweep, prefer=prefer)
    winner = winner_of(done.folder, done.history)
    assert winner is not None
    assert (winner.best, winner.ties, winner.trial) == (0, (1, 2), chosen)
    assert find_run("night", out).name == f"night/{chosen}"
    others = [number for number in range(4) if number != chosen]
    assert [run.trial.number for run in best_runs(done.folder, done.history, 4)] == [chosen, *others]
    capsys.readouterr()
    assert main(["status", "night", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "within noise of the best, trial 0: trial 1, 2" in said
    assert ("is the sweep's winner" in said) == (prefer is not None)
    assert main(["list", "--json", "--out", str(out)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["best"]["trial"], row["best"]["prefer"]) == (chosen, prefer)
    assert row["best"]["within_noise"] == ([0, 1, 2] if prefer else [])


def test_the_best_of_a_sweep_of_groups_is_a_mean(sweep: Sweep, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trials 0 and 1 are one group, 12 and 11 of 14 right. t of one degree of freedom is 12.706."""
    done = priced_sweep(sweep, trials=2, replicates=2)
    assert [sorted(trial.number for trial in one.members.values()) for one in done.history.groups()] == [[0, 1], [2, 3]]
    assert best_line(done.history) == "best so far: 82.14% val_accuracy, mean of 2, trial 0 lenet, seed 1 of 2"
    capsys.readouterr()
    assert main(["list", "--json", "--out", str(out)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["best"]["trial"], row["best"]["mean_of"]) == (0, 2)
    assert row["best"]["value"] == pytest.approx(23 / 28)
    assert row["best"]["low"] == pytest.approx(23 / 28 - 12.706 / 28, abs=1e-4)
    assert main(["list", "--out", str(out)]) == 0
    assert "82.14% (36.8% to 100.0%), mean of 2" in " ".join(capsys.readouterr().out.split())
    found = sweep_summary("night", done.history)
    assert (found.best_trial, found.best, found.median) == pytest.approx((0, 23 / 28, (23 + 13) / 56))
    assert [(gain.trial, gain.accuracy) for gain in found.gains] == [(0, pytest.approx(23 / 28))]
    assert found.best_minutes == found.gains[0].minutes


def test_the_sentence_names_what_it_costs(sweep: Sweep) -> None:
    done = priced_sweep(sweep, prefer="smaller")
    assert str(winner_of(done.folder, done.history)) == (
        "within noise of the best, trial 0: trial 1, 2; --prefer smaller: trial 1 is the sweep's winner "
        "(50,000 parameters, the best 1,000,000 parameters)"
    )


def test_weights_of_what_may_win_are_kept(sweep: Sweep, out: Path) -> None:
    def kept(result: SweepResult) -> list[int]:
        return [trial.number for trial in result if result.folder.trial(trial.number).best.is_file()]

    assert kept(priced_sweep(sweep, keep=1, name="best")) == [0]
    preferred = priced_sweep(sweep, keep=1, prefer="smaller")
    assert kept(preferred) == [0, 1, 2]
    assert main(["gc", "night", "--keep", "1", "--yes", "--out", str(out)]) == 0
    assert kept(preferred) == [0, 1], "the best, and the winner"
    assert find_run("night", out).trial.number == 1


def test_what_has_no_weights_is_not_preferred(sweep: Sweep, out: Path) -> None:
    done = priced_sweep(sweep, prefer="smaller")
    done.folder.trial(1).best.unlink()
    assert find_run("night", out).trial.number == 2


def test_a_trial_that_diverged_is_not_preferred(sweep: Sweep, out: Path) -> None:
    """Trials 1 and 2 are within noise of trial 0. Trial 2 has the shortest epochs, and diverges after its first."""

    def body(task: Task) -> Iterator[Message]:
        seconds = (4.0, 2.0, 0.1)[task.trial]
        for message in priced(task):
            if isinstance(message, EpochReport):
                yield message.model_copy(update={"metrics": message.metrics | {"epoch_seconds": seconds}})
            elif task.trial == 2:
                yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason="train_loss is nan")
            else:
                yield message

    done = priced_sweep(sweep, body=body, trials=3, prefer="faster")
    assert [trial.state for trial in done] == ["done", "done", "failed"]
    winner = winner_of(done.folder, done.history)
    assert winner is not None
    assert (winner.best, winner.ties) == (0, (1,))
    assert find_run("night", out).name == "night/1"


@pytest.mark.parametrize(("best", "other", "chosen"), [(100, 100, 0), (100, 1000, 0), (100, 50, 1), (None, 50, 0)])
def test_a_best_that_was_pruned_at_its_rung_counts_by_its_weights(
    sweep: Sweep, out: Path, best: int | None, other: int, chosen: int
) -> None:
    """Trials 0 and 1 have 12 and 11 of 14 faces right. The val loss promotes trial 1 alone, so 0 has no last message."""

    def body(task: Task) -> Iterator[Message]:
        *reports, end = priced(task)
        folder, size = TrialFolder(Path(task.folder)), (best, other)[task.trial]
        if size is not None:
            save_file({"weight": np.zeros((size - 10, 1)), "bias": np.zeros(10), "norm.running_mean": np.zeros(10)},
                      folder.best)  # fmt: skip
        for epoch in range(1, task.epochs + 1):
            for report in reports:
                assert isinstance(report, EpochReport)
                losses = {"val_loss": (2.0, 0.1)[task.trial]}
                yield report.model_copy(update={"epoch": epoch, "metrics": report.metrics | losses})
        yield end.model_copy(update={"scores": {"parameters": float(other)}})

    done = priced_sweep(sweep, body=body, trials=2, epochs=4, pruner="promoting", prefer="smaller")
    assert [trial.state for trial in done] == ["pruned", "done"]
    assert ["parameters" in trial.end.best for trial in done if trial.end] == [False, True]
    winner = winner_of(done.folder, done.history)
    assert winner is not None
    assert (winner.best, winner.ties) == (0, (1,))
    assert find_run("night", out).name == f"night/{chosen}"
    if best is None:
        assert str(winner).endswith("--prefer smaller: trial 0 is the sweep's winner (its parameters are not known)")


@pytest.mark.parametrize(("prefer", "source"), [(None, 0), ("smaller", 1)])
def test_try_changes_the_settings_of_the_winner(
    sweep: Sweep, out: Path, prefer: str | None, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.driver.acts._LOOK_SECONDS", 0.0)

    def body(task: Task) -> Iterator[Message]:
        if task.trial == 3:
            post(SweepFolder(out / "night"), Request(verb="try", arguments={"settings": ["momentum=0.5"]}))
        yield from priced(task.model_copy(update={"trial": min(task.trial, 3)}))

    (act,) = priced_sweep(sweep, body=body, prefer=prefer).history.acts
    assert act.answer.startswith(f"starts next: the settings of trial {source} with momentum=0.5")


def test_a_finished_sweep_can_be_asked_for_another_preference(sweep: Sweep, out: Path) -> None:
    priced_sweep(sweep)
    again = priced_sweep(sweep, resume=True, prefer="faster")
    assert (again.exit_code, len(again)) == (0, 4)
    assert SweepHistory.load(again.folder.journal).finished
    assert find_run("night", out).trial.number == 2
    assert priced_sweep(sweep, resume=True).history.spec["prefer"] == "faster"


def test_the_report_and_mlflow_name_the_winner(sweep: Sweep, out: Path) -> None:
    done = priced_sweep(sweep, prefer="smaller")
    draw_sweep(done.folder)
    told = json.loads((done.folder.figures / "leaderboard.json").read_bytes())
    assert (told["winner"], told["prefer"], told["within_noise_of_best"]) == (1, "smaller", [1, 2])
    page = done.folder.report.read_text(encoding="utf-8")
    assert "The winner" in page
    assert "preferred within noise of the best" in page
    assert "--prefer smaller: trial 1 is the sweep's winner" in html.unescape(page)
    assert main(["sync", "night", "--out", str(out)]) == 0
    with opened(default_uri(out)) as client:
        (experiment,) = [one for one in client.search_experiments() if one.name == "fake_space"]
        runs = client.search_runs([experiment.experiment_id])
    (tags,) = [run.data.tags for run in runs if "winner" in run.data.tags]
    assert (tags["winner"], tags["prefer"], tags["within_noise_of_best"]) == ("1", "smaller", "1, 2")


def test_an_unknown_preference_is_refused(sweep: Sweep) -> None:
    with pytest.raises(InputError, match="--prefer cheaper: must be 'smaller' or 'faster'"):
        priced_sweep(sweep, prefer="cheaper")
