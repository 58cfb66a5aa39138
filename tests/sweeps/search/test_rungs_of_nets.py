"""Trials of several nets: each net's best is not given up for another net's quicker start.

`recorded_nets.json` has the val accuracies that the reports' rows and the project's own records had on FER2013 (48 pixels,
an H200; `docs/results.md`): the residual nets end some 15 points above LeNet, and are under it for the first epochs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_models import AlexNetConfig, CompactResNetConfig, LeNetConfig, Recipe, VGGSmallConfig
from sweeps import Space, TrialConfig
from sweeps.search.asha import Promoting
from sweeps.space import Pruner, Rungs
from sweeps.sweep import SweepResult
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import metrics, verdict_stands
from tracking.record.events import SweepStarted
from tracking.record.journal import read

RECORDED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("recorded_nets.json").read_text())
NAMES = tuple(RECORDED)
EPOCHS = 22
NETS = {
    "lenet": LeNetConfig,
    "alexnet": AlexNetConfig,
    "vgg_small": VGGSmallConfig,
    "compact_resnet": CompactResNetConfig,
}


def suggest(trial: optuna.Trial) -> TrialConfig:
    name = trial.suggest_categorical("recorded", NAMES)
    return TrialConfig(
        net=NETS[RECORDED[name]["net"]](), recipe=Recipe(lr=0.001 * (1 + NAMES.index(name)), batch_size=2)
    )


def curve(task: Task) -> list[float]:
    return list(RECORDED[NAMES[round(task.config.recipe.lr / 0.001) - 1]]["val_accuracy"][:EPOCHS])


def body(task: Task) -> Iterator[Message]:
    for epoch, value in enumerate(curve(task), start=1):
        if verdict_stands(task):
            break
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value))
    yield TrialEnd(attempt=task.attempt, state="ended")


def space(pruner: Pruner, rungs: Rungs) -> Space:
    return Space(suggest=suggest, sampler="grid", pruner=pruner, rungs=rungs, first_rung_epochs=2, name="zoo")


def best_of_each_net(result: SweepResult) -> dict[str, float]:
    """By how much each net's best complete trial is under its best recorded curve."""
    reached: dict[str, float] = defaultdict(float)
    for trial in result:
        if trial.state == "done":
            reached[trial.started.net] = max(reached[trial.started.net], trial.best_accuracy or 0.0)
    could = {
        net: max(max(one["val_accuracy"][:EPOCHS]) for one in RECORDED.values() if one["net"] == net) for net in NETS
    }
    return {net: could[net] - reached[net] for net in NETS}


@pytest.mark.parametrize("pruner", ["halving", "promoting"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_of_each_net_is_trained_to_its_end(
    sweep: Callable[..., SweepResult], pruner: Pruner, seed: int
) -> None:
    asked = {"trials": len(NAMES), "epochs": EPOCHS, "body": body, "seed": seed}
    result = sweep(space=space(pruner, "net"), **asked)
    assert result.history.finished
    assert all(lost < 0.03 for lost in best_of_each_net(result).values())
    assert result.history.count("pruned") >= 3
    together = sweep(space=space(pruner, "all"), name="together", **asked)
    lost = best_of_each_net(together)
    assert lost["alexnet"] > 0.4  # none was complete
    if pruner == "promoting":
        assert lost["compact_resnet"] > 0.6
        assert together.history.ranked()[0].started.net == "lenet"
    assert result.history.ranked()[0].started.net == "compact_resnet"


def test_the_rank_of_a_waiting_trial_is_that_within_its_net(sweep: Callable[..., SweepResult]) -> None:
    result = sweep(space=space("promoting", "net"), trials=len(NAMES), epochs=EPOCHS, body=body)
    reasons = [trial.reason for trial in result if trial.state == "pruned" and trial.started.net == "lenet"]
    assert all(reason.endswith("of 4 by val loss") for reason in reasons)


def test_sweeps_of_earlier_versions_continue_with_rungs_of_all_nets(
    sweep: Callable[..., SweepResult], out: Path
) -> None:
    asked = {"space": space("promoting", "all"), "trials": 4, "epochs": 3, "body": body}
    sweep(**asked)
    journal = out / "night/journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line.get("spec"):
            assert line["spec"].pop("rungs") == "all"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    resumed = sweep(**asked | {"space": space("promoting", "net"), "trials": 8, "resume": True})
    assert resumed.history.finished
    assert resumed.history.spec["rungs"] == "all"
    first = next(iter(read(journal)))
    assert isinstance(first, SweepStarted)
    assert "rungs" not in first.spec


def test_promotions_of_two_nets_take_turns() -> None:
    promoting = Promoting(1, 2, net_of=lambda trial: "slow" if trial % 2 else "quick")
    for trial, value in enumerate([0.5, 0.3, 0.6, 0.2, 0.7, 0.1, 0.4, 0.05]):
        assert promoting.report(trial, 1, value) is None
        promoting.wait(trial)
    assert promoting.promotable(0) == [4, 1, 2, 3]
    assert promoting.rank(1) == (1, 4)
