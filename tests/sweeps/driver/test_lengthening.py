"""Trials that get more epochs continue from before their cooldown, to the bits of trials that had them from the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_models import LeNetConfig, NetConfig, Recipe
from fer_models.training.tensor_file import read_tensors
from sweeps import Baseline, Space, SweepResult, TrialConfig, run_sweep
from sweeps.cli.main import main
from tests.stand_ins import QUIET, SMALL_NET
from tests.sweeps.fake_trials import refused
from tracking.record.events import Act, AttemptStarted, EpochDone, Event, TrialEnded, TrialPaused
from tracking.record.history import SweepHistory
from tracking.record.inbox import Request, post
from tracking.record.journal import read
from tracking.record.layout import SweepFolder, TrialFolder

pytestmark = pytest.mark.timeout(120)

OLD, NEW = 5, 8
BEFORE_COOLDOWN = 4


def config(lr: float = 0.01, policy: str = "wsd", net: NetConfig = SMALL_NET) -> TrialConfig:
    recipe = Recipe(lr=lr, lr_policy=policy, batch_size=8, ema_decay=0.9, label_smoothing=0.1)
    return TrialConfig(net=net, recipe=recipe)


def suggest(trial: optuna.Trial) -> TrialConfig:
    return config(trial.suggest_float("lr", 0.001, 0.02, log=True))


def suggest_lenet(trial: optuna.Trial) -> TrialConfig:
    """Its accuracies differ soon."""
    return config(trial.suggest_float("lr", 0.001, 0.02, log=True), net=LeNetConfig())


def fixed(policy: str) -> Callable[[optuna.Trial], TrialConfig]:
    return lambda trial: config(policy=policy)


SPACE = Space(suggest=suggest, max_epochs=OLD, trials=3, sampler="tpe", pruner="none")
BASELINES = [Baseline("cosine", config(policy="cosine")), Baseline("short", config(), epochs=OLD)]
SPACES = {
    "wsd": SPACE,
    "one": replace(SPACE, trials=1),
    "constant": replace(SPACE, suggest=fixed("constant"), trials=1),
    "cosine": replace(SPACE, suggest=fixed("cosine"), trials=1),
    "baselines": replace(SPACE, baselines=BASELINES),
    "promoting": replace(SPACE, pruner="promoting", first_rung_epochs=1, reduction_factor=3, trials=12, max_epochs=10),
    "halving": replace(
        SPACE, suggest=suggest_lenet, pruner="halving", first_rung_epochs=1, reduction_factor=2, trials=6
    ),
}


@pytest.fixture(scope="module")
def at_new_length(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> SweepResult:
    """The sweep that had the new length from the start."""
    return run_sweep(SPACE, data=str(tiny_csv), name="whole", out=tmp_path_factory.mktemp("whole"), runner="inline",
                     figures=False, epochs=NEW, **QUIET)  # fmt: skip


@pytest.fixture
def train(tiny_csv: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SweepResult]:
    monkeypatch.setattr("sweeps.driver.acts._LOOK_SECONDS", 0.0)
    asked = {"data": str(tiny_csv), "name": "night", "out": out, "runner": "inline", "figures": False, **QUIET}

    def run(space: str = "wsd", **more: Any) -> SweepResult:
        path = out.parent / f"{space}.py"
        path.write_text(f"from tests.sweeps.driver.test_lengthening import SPACES\n\nSPACE = SPACES['{space}']\n")
        return run_sweep(str(path), **asked | more)

    return run


def extend(out: Path, *more: str) -> int:
    return main(["extend", "night", "--epochs", str(NEW), "--out", str(out), *more])


def timeless(epochs: list[EpochDone]) -> list[dict[str, float]]:
    return [
        {name: value for name, value in done.metrics.items() if "second" not in name and "system" not in name}
        for done in epochs
    ]


def check_equal(ours: SweepResult, number: int, theirs: SweepResult) -> None:
    """Every epoch and the final weights, to the last bit."""
    one, other = ours.history.trials[number], theirs.history.trials[number]
    assert (one.state, one.last_epoch, one.started.epochs) == ("done", NEW, NEW)
    assert one.started.config_id == other.started.config_id
    assert timeless(one.epochs) == timeless(other.epochs)
    files = [ours.folder.trial(number), theirs.folder.trial(number)]
    for paths in ([folder.best for folder in files], [folder.lasting.last for folder in files]):
        mine, wanted = (read_tensors(path)[0] for path in paths)
        assert mine.keys() == wanted.keys()
        assert all(mine[name].equal(wanted[name]) for name in mine)


def test_the_best_trials_of_a_finished_sweep_continue_to_the_bits_of_the_new_length(
    train: Callable[..., SweepResult], out: Path, at_new_length: SweepResult, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(keep=2)
    best = sorted(trial.number for trial in first.history.ranked()[:2])
    (other,) = {0, 1, 2} - set(best)
    assert [first.folder.trial(number).lasting.last.is_file() for number in best] == [True, True]
    assert not first.folder.trial(other).lasting.root.exists()
    assert extend(out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{NEW} epochs instead of {OLD}: trials {best[0]}, {best[1]} to continue after epoch 4" in said
    assert f"not trial {other}: no state from before the cooldown" in said
    waiting = SweepHistory.load(first.folder.journal)
    assert [waiting.trials[number].last_epoch for number in best] == [BEFORE_COOLDOWN] * 2
    assert waiting.stopped is not None
    assert "more to do since extend" in waiting.stopped.reason

    again = train(keep=2, resume=True, epochs=NEW)
    for number in best:
        check_equal(again, number, at_new_length)
    assert [trial.state for trial in again] == ["done"] * 3
    assert again[other].last_epoch == OLD
    events = [event for event in read(again.folder.journal) if not isinstance(event, EpochDone)]
    attempts = [event.reason for event in events if isinstance(event, AttemptStarted)]
    assert attempts == ["extended to 8 epochs"] * 2
    assert not (again.folder.forks / f"{best[0]:04d}").exists()
    assert SweepHistory.load(again.folder.journal) == again.history
    assert sorted(path.parent.name for path in out.glob("night/trials/*/best.safetensors")) == [
        f"{number:04d}" for number in best
    ]


@pytest.mark.parametrize("after", range(1, OLD + 1))
@pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
def test_a_running_trial_continues_to_the_bits_of_the_new_length(
    train: Callable[..., SweepResult], out: Path, at_new_length: SweepResult, after: int, *, dies: bool
) -> None:
    """It is asked for after each epoch, before and in the cooldown; the driver may die with the act in its journal."""
    folder = SweepFolder(out / "night")

    def ask(event: Event, _: SweepHistory) -> None:
        if isinstance(event, EpochDone) and event.epoch == after and not SweepHistory.load(folder.journal).acts:
            post(folder, Request(verb="extend", arguments={"epochs": f"+{NEW - OLD}"}))
        if isinstance(event, Act) and dies:
            raise SystemExit

    if dies:
        with pytest.raises(SystemExit):
            train("one", listeners=[ask])
        result = train("one", resume=True, epochs=NEW)
    else:
        result = train("one", listeners=[ask])
    check_equal(result, 0, at_new_length)
    trained = [event.epoch for event in read(folder.journal) if isinstance(event, EpochDone)]
    in_cooldown = [OLD] if after == OLD else []
    assert trained == sorted([*range(1, NEW + 1), *in_cooldown]) or trained[: OLD + 1] == [1, 2, 3, 4, 5, 5]


def test_it_is_extended_twice_and_trials_to_come_have_the_length(
    train: Callable[..., SweepResult], out: Path, at_new_length: SweepResult
) -> None:
    train("one")
    for more in ("+1", "+2"):
        assert main(["extend", "night", "--epochs", more, "--trials", "+1", "--out", str(out)]) == 0
    result = train("one", resume=True, trials=3, epochs=NEW)
    for number in range(3):
        check_equal(result, number, at_new_length)


def test_a_policy_without_a_cooldown_continues_after_its_last_epoch(
    train: Callable[..., SweepResult], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("constant")
    assert extend(out) == 0
    assert "trial 0 to continue after epoch 5" in capsys.readouterr().out
    result = train("constant", resume=True, epochs=NEW)
    whole = train("constant", name="whole", epochs=NEW)
    check_equal(result, 0, whole)
    assert [done.epoch for done in result[0].epochs] == list(range(1, NEW + 1))


def test_what_cannot_be_extended_is_refused_in_one_line(
    train: Callable[..., SweepResult], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("cosine")
    before = (out / "night/journal.jsonl").read_bytes()
    said = refused(capsys, lambda: extend(out))
    assert said == (
        "night: lr_policy 'cosine' spans the run: a longer run has another learning rate in each epoch; "
        "only a sweep with --set lr_policy=wsd can be extended"
    )
    for epochs in ("5", "4"):
        words = ["extend", "night", "--epochs", epochs, "--out", str(out)]
        assert (
            refused(capsys, partial(main, words))
            == f"night: --epochs {epochs}: the sweep has 5 epochs; give more, or +N"
        )
    history = SweepHistory.load(out / "night/journal.jsonl")
    assert (out / "night/journal.jsonl").read_bytes().startswith(before)
    assert (history.trials[0].state, history.max_epochs) == ("done", OLD)
    assert history.finished is not None


def test_a_trial_whose_state_is_gone_stays_as_it_is(
    train: Callable[..., SweepResult], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("one")
    TrialFolder(out / "night/trials/0000").lasting.last.unlink()
    assert "no trial can continue: not trial 0: no state from before" in refused(capsys, lambda: extend(out))


def test_baselines_that_span_the_run_and_short_ones_stay_beside_those_that_continue(
    train: Callable[..., SweepResult], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("baselines")
    assert extend(out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "trial 2 to continue after epoch 4" in said
    assert "not trial 0: lr_policy 'cosine' spans the run" in said
    assert "not trial 1: has the 5 epochs of its report" in said
    result = train("baselines", resume=True, epochs=NEW)
    assert [(trial.state, trial.last_epoch) for trial in result] == [("done", OLD), ("done", OLD), ("done", NEW)]


@pytest.mark.long
def test_a_trial_that_was_given_up_is_not_taken_up_again(
    train: Callable[..., SweepResult], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned = train("halving")
    given_up = [trial.number for trial in pruned if trial.state == "pruned"]
    assert given_up
    assert extend(out) == 0
    assert "given up" in capsys.readouterr().out
    again = train("halving", resume=True, epochs=NEW)
    assert [trial.number for trial in again if trial.state == "pruned"] == given_up
    assert {trial.last_epoch for trial in again if trial.state == "done"} == {NEW}
    assert sum(isinstance(event, TrialEnded) for event in read(again.folder.journal)) == 6 + 6 - len(given_up)


@pytest.mark.parametrize("rung", [3, 9], ids=["before the cooldown", "in the cooldown"])
def test_a_trial_that_waits_at_a_rung_is_promoted_at_the_new_length(
    train: Callable[..., SweepResult], out: Path, rung: int
) -> None:
    """The cooldown begins after epoch 8: a trial that waits at rung 9 comes to it again."""
    folder = SweepFolder(out / "night")

    def ask(event: Event, _: SweepHistory) -> None:
        if isinstance(event, TrialPaused) and event.epoch == rung and not SweepHistory.load(folder.journal).acts:
            post(folder, Request(verb="extend", arguments={"epochs": "12"}))

    result = train("promoting", listeners=[ask])
    assert result.history.acts[0].lengthened
    done = [trial for trial in result if trial.state == "done"]
    assert done
    assert all(trial.last_epoch == 12 for trial in done)
    assert {trial.state for trial in result} == {"done", "pruned"}
    arrivals = [event.trial for event in read(folder.journal) if isinstance(event, TrialPaused) and event.epoch == 9]
    assert (len(arrivals) > len(set(arrivals))) == (rung == 9)


def test_mlflow_has_the_new_epochs_in_the_same_run(train: Callable[..., SweepResult], out: Path) -> None:
    """The points of the old cooldown stay there, as the journal has them."""
    from mlflow import MlflowClient

    real = {"tracker": None, "tracking_uri": f"sqlite:///{out}/mlflow.db"}
    train("one", **real)
    client = MlflowClient(real["tracking_uri"])
    (experiment,) = (one for one in client.search_experiments() if one.name == "one")

    def run_of_trial() -> Any:
        (run,) = (one for one in client.search_runs([experiment.experiment_id]) if "trial" in one.data.tags)
        return run

    before = run_of_trial()
    assert extend(out) == 0
    result = train("one", resume=True, epochs=NEW, **real)
    after = run_of_trial()
    assert after.info.run_id == before.info.run_id
    assert (after.info.status, after.data.tags["state"]) == ("FINISHED", "done")
    points = client.get_metric_history(after.info.run_id, "val_loss")
    recorded = [event for event in read(result.folder.journal) if isinstance(event, EpochDone)]
    assert [(point.step, point.value) for point in points] == [(one.epoch, one.metrics["val_loss"]) for one in recorded]
    assert [one.epoch for one in recorded] == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    parent = next(one for one in client.search_runs([experiment.experiment_id]) if "trial" not in one.data.tags)
    assert (parent.info.status, parent.data.metrics["sweep/done"]) == ("FINISHED", 1)
