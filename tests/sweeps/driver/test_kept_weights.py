"""A sweep keeps the weights of its best trials and baselines: dropped as trials end, whatever kills the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fer_models import LeNetConfig, Recipe
from sweeps import Space, TrialConfig, run_sweep
from sweeps.after.finish import NothingAtEnd
from sweeps.cli.main import main, run_main
from sweeps.driver.runner import TrialBody
from sweeps.runs import find_run
from sweeps.sweep import SweepResult
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import metrics, only_sampled, refused, verdict_stands
from tracking.record.events import TrialStarted
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal
from tracking.record.layout import SweepFolder, TrialFolder

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]


def body_with(values: dict[int, list[float]]) -> TrialBody:
    """Trial number → its validation accuracies; it keeps weights and a state as `run_trial` does."""

    def body(task: Task) -> Iterator[Message]:
        folder = TrialFolder(Path(task.folder))
        best = -1.0
        for epoch, value in enumerate(values[task.trial], start=1):
            if verdict_stands(task):
                break
            folder.last.write_bytes(b"state")
            if value > best:
                best = value
                folder.best.write_bytes(b"weights")
            yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value))
        yield TrialEnd(attempt=task.attempt, state="ended")

    return body


def kept(folder: SweepFolder, name: str = "best") -> list[int]:
    return sorted(int(path.parent.name) for path in folder.root.glob(f"trials/*/{name}.safetensors"))


VALUES = {0: [0.2], 1: [0.3], 2: [0.5], 3: [0.4], 4: [0.5], 5: [0.1], 6: [0.6], 7: [0.3]}


def test_the_best_and_the_baselines_stay(sweep: Callable[..., SweepResult]) -> None:
    """Trials 0 and 1 are baselines; 2 and 4 are equal, and the earlier stays."""
    seen = []

    def watch(event: object, history: SweepHistory) -> None:
        if isinstance(event, TrialStarted):
            seen.append(kept(SweepFolder(Path("runs/night"))))

    done = sweep(trials=8, epochs=1, keep=2, body=body_with(VALUES), listeners=[watch])
    assert kept(done.folder) == [0, 1, 2, 6]
    assert seen[5:] == [[0, 1, 2, 4], [0, 1, 2, 4], [0, 1, 2, 6]]
    assert kept(done.folder, "last") == []
    assert all((done.folder.trial(number).root / "config.json").exists() for number in range(8))


def test_five_stay_unless_it_is_said(sweep: Callable[..., SweepResult]) -> None:
    values = {number: [0.1 + number / 100] for number in range(9)}
    done = sweep(trials=9, epochs=1, body=body_with(values), space=only_sampled())
    assert kept(done.folder) == [4, 5, 6, 7, 8]
    assert done.history.drivers[0].spec["keep"] == 5


def test_the_winner_that_was_confirmed_stays(sweep: Callable[..., SweepResult]) -> None:
    """Trial 1 is confirmed under new seeds, which are worse than it was: 5 is the best of them, and of the sweep."""
    values = {0: [0.5], 1: [0.62], 2: [0.6], 3: [0.55], 4: [0.54], 5: [0.56]}
    done = sweep(trials=3, epochs=1, keep=1, confirm=1, body=body_with(values), space=only_sampled())
    assert kept(done.folder) == [1, 5]
    assert find_run("night", Path("runs")).weights_file().samefile(done.folder.trial(5).best)
    assert main(["gc", "--keep", "1", "--yes", "--out", "runs"]) == 0
    assert kept(done.folder) == [1, 5]


def test_a_trial_of_the_best_group_stays(sweep: Callable[..., SweepResult]) -> None:
    """Trial 2 is the best alone; trials 0 and 1 have the better mean."""
    values = {0: [0.5], 1: [0.5], 2: [0.6], 3: [0.1]}
    done = sweep(trials=2, epochs=1, keep=1, replicates=2, body=body_with(values), space=only_sampled())
    assert kept(done.folder) == [0, 2]


def test_what_a_crash_leaves_goes_at_the_next_start(sweep: Callable[..., SweepResult]) -> None:
    """The journal has the end of trial 4, and its driver dies before anything is removed."""

    def dies(event: object, history: SweepHistory) -> None:
        if sum(trial.is_over for trial in history.trials.values()) == 5:
            raise KeyboardInterrupt

    asked = {"trials": 8, "epochs": 1, "keep": 1, "body": body_with(VALUES), "space": only_sampled()}
    with pytest.raises(KeyboardInterrupt):
        sweep(**asked, listeners=[dies])
    folder = SweepFolder(Path("runs/night"))
    assert (kept(folder), kept(folder, "last")) == ([2, 4], [4])
    done = sweep(**asked | {"trials": 5}, resume=True)
    assert (kept(done.folder), kept(done.folder, "last")) == ([2], [])
    assert kept(sweep(**asked, resume=True).folder) == [6]


def test_a_stopped_trial_keeps_everything(sweep: Callable[..., SweepResult]) -> None:
    def stops(event: object, history: SweepHistory) -> None:
        if isinstance(event, TrialStarted) and event.trial == 3:
            raise KeyboardInterrupt

    def body(task: Task) -> Iterator[Message]:
        for message in body_with({**VALUES, 2: [0.05, 0.05]})(task):
            yield message
            if task.trial == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(trials=4, epochs=2, keep=1, body=body, space=only_sampled(first_rung_epochs=2))
    folder = SweepFolder(Path("runs/night"))
    assert (kept(folder), kept(folder, "last")) == ([1, 2], [2])


def test_a_sweep_of_an_earlier_version_keeps_all_unless_it_is_asked(sweep: Callable[..., SweepResult]) -> None:
    space = only_sampled()
    done = sweep(trials=3, epochs=1, keep=9, body=body_with(VALUES), space=space)
    text = done.folder.journal.read_text()
    assert '"keep":9' in text
    done.folder.journal.write_text(text.replace(',"keep":9', ""))
    assert kept(sweep(trials=6, resume=True, body=body_with(VALUES), space=space).folder) == [0, 1, 2, 3, 4, 5]
    again = sweep(trials=6, resume=True, keep=2, body=body_with(VALUES), space=space)
    assert kept(again.folder) == [2, 4]


def test_what_another_run_needs_stays(sweep: Callable[..., SweepResult], out: Path) -> None:
    """A sweep that is not finished starts from trial 0, an ensemble answers with trial 1; both are outdone."""
    space = only_sampled()
    night = sweep(trials=2, epochs=1, keep=9, body=body_with(VALUES), space=space).folder
    for name, settings, given in (
        ("later", {"transfer.weights": "run:night/0"}, {}),
        ("both", {}, {"ensemble": {"method": "mean", "members": {"night/1": 1.0}}}),
    ):
        folder = SweepFolder(out / name).create()
        started = SweepHistory.load(night.journal).started
        trial = TrialStarted(trial=0, config_id="", config=given, seed=0, epochs=1)
        with Journal.open(folder.journal) as journal:
            journal.append(started.model_copy(update={"name": name, "spec": {"settings": settings}}), trial)
    done = sweep(trials=7, keep=1, resume=True, body=body_with(VALUES), space=space)
    assert kept(done.folder) == [0, 1, 6]


def test_a_number_below_one_is_refused(run: Callable[..., int], capsys: Capture) -> None:
    assert "--keep 0: must be at least 1" in refused(capsys, lambda: run("--keep", "0"))


def _lenet(lr: float) -> TrialConfig:
    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    """Four real trials, `night`, that keep the weights of the best alone."""
    out = tmp_path_factory.mktemp("trained")
    rates = iter((0.01, 0.02, 0.03, 0.04) * 8)
    space = Space(suggest=lambda trial: _lenet(next(rates)), first_rung_epochs=3, name="lenets")
    run_sweep(space, data=tiny_csv, trials=4, epochs=2, name="night", out=out, runner="inline", keep=1,
              at_end=NothingAtEnd())  # fmt: skip
    return out


def test_a_trial_without_weights_says_how_it_is_trained_again(
    trained: Path, tiny_csv: Path, no_mlflow: object, capsys: Capture
) -> None:
    (best,) = kept(SweepFolder(trained / "night"))
    other = f"night/{(best + 1) % 4}"
    out = ["--out", str(trained)]
    asked = ["lenet_space", "--data", str(tiny_csv), "--runner", "inline", "--set", "batch_size=8"]
    for act in (
        lambda: main(["test", other, *out]),
        lambda: main(["svm", other, *out]),
        lambda: main(["inspect", other, *out]),
        lambda: main(["register", other, *out]),
        lambda: main(["ensemble", f"night/{best}", other, *out]),
        lambda: run_main([*asked, "--set", f"weights=run:{other}", *out]),
    ):
        said = refused(capsys, act)
        assert f"{other}: its weights are not kept" in said
        assert "its sweep keeps those of the best 1 trials and of baselines (--keep)" in said
    words = said.partition("train it again: python -m sweeps.run ")[2].split()
    assert words[0] == str(trained / f"night/trials/000{(best + 1) % 4}/config.json")
    assert run_main([*words, "--name", "again", "--runner", "inline"]) == 0
    again, first = (SweepHistory.load(trained / name / "journal.jsonl").trials for name in ("again", "night"))
    numbers = ("train_loss", "val_loss", "val_accuracy")
    assert [[epoch.metrics[name] for name in numbers] for epoch in again[0].epochs] == [
        [epoch.metrics[name] for name in numbers] for epoch in first[(best + 1) % 4].epochs
    ]
    assert again[0].started.config_id == first[(best + 1) % 4].started.config_id
    assert SweepHistory.load(trained / "again/journal.jsonl").started.space == f"night-000{(best + 1) % 4}"


def test_tables_and_pages_do_without_weights(trained: Path, capsys: Capture) -> None:
    out = ["--out", str(trained)]
    assert main(["report", "night", *out]) == 0
    table = (trained / "night/figures/leaderboard.csv").read_text().splitlines()
    place = table[0].split(",").index("parameters")
    assert len({line.split(",")[place] for line in table[1:]} - {""}) == 1
    assert main(["compare", "night/0", "night/1", *out]) == 0
    assert main(["status", "night", *out]) == 0
    probabilities = [np.load(path)["probabilities"] for path in trained.glob("night/trials/*/val_probabilities.npz")]
    assert len(probabilities) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; a trial's configuration is in its folder"),
        ("{", "not a configuration as JSON"),
        ("[1]", "expected an object with net and recipe"),
        ('{"net": {"name": "lenet"}}', "recipe: required"),
    ],
)
def test_a_configuration_that_is_none_is_refused(
    content: str | None, message: str, tmp_path: Path, capsys: Capture
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert message in refused(capsys, lambda: run_main([str(tmp_path / "config.json")]))


def test_the_front_of_several_objectives_stays(tmp_path: Path, capsys: Capture) -> None:
    """Trial 1 is on the front until trial 3 is better in both; trial 2 is fast, and trial 4 neither."""
    measured = [(0.9, 50.0), (0.4, 20.0), (0.2, 5.0), (0.5, 10.0), (0.3, 30.0)]
    seen = []

    def body(task: Task) -> Iterator[Message]:
        accuracy, latency = measured[task.trial]
        TrialFolder(Path(task.folder)).best.write_bytes(b"weights")
        values = metrics(accuracy) | {"latency_milliseconds": latency}
        yield EpochReport(attempt=task.attempt, epoch=1, metrics=values)
        yield TrialEnd(attempt=task.attempt, state="ended")

    def watch(event: object, history: SweepHistory) -> None:
        if isinstance(event, TrialStarted):
            seen.append(kept(SweepFolder(tmp_path / "runs/night")))

    run_sweep(
        only_sampled(), body=body, out=tmp_path / "runs", name="night", trials=5, epochs=1, runner="inline",
        objective="val_accuracy,latency", keep=1, figures=False, listeners=[watch], pruner="none", **QUIET,
    )  # fmt: skip
    assert seen == [[], [0], [0, 1], [0, 1, 2], [0, 2, 3]]
    assert kept(SweepFolder(tmp_path / "runs/night")) == [0, 2, 3]
    assert main(["gc", "night", "--keep", "1", "--yes", "--out", str(tmp_path / "runs")]) == 0
    assert "0002/best.safetensors stays: it is on the Pareto front" in " ".join(capsys.readouterr().out.split())
    assert kept(SweepFolder(tmp_path / "runs/night")) == [0, 2, 3]
