"""On which grounds the sampler decides: the trials that it drew, each at its worth."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import optuna
import pytest

from fer_models import LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig
from sweeps.driver.runner import InlineRunner
from sweeps.search.proposals import Proposal
from sweeps.search.study import Study
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import good_body, metrics, only_sampled, open_desk, spec
from tracking.record.events import Told, TrialEnded, TrialStarted
from tracking.record.history import SweepHistory


def suggest(trial: optuna.Trial) -> TrialConfig:
    recipe = Recipe(
        lr=trial.suggest_float("lr", 1e-4, 1, log=True),
        momentum=trial.suggest_float("momentum", 0, 0.99),
        weight_decay=trial.suggest_float("weight_decay", 1e-6, 0.1, log=True),
    )
    return TrialConfig(net=LeNetConfig(dropout=trial.suggest_float("dropout", 0, 0.9)), recipe=recipe)


def accuracy(config: TrialConfig) -> float:
    """A smooth hill with its top well inside the space."""
    recipe = config.recipe
    slopes = (
        math.log10(recipe.lr) + 2,
        4 * (recipe.momentum - 0.9),
        (math.log10(recipe.weight_decay) + 4) / 2,
        2 * (getattr(config.net, "dropout", 0.0) - 0.3),
    )
    return 0.6 - 0.05 * sum(slope**2 for slope in slopes)


def _baseline(lr: float) -> Baseline:
    recipe = Recipe(lr=lr, momentum=0.9, weight_decay=1e-4)
    return Baseline(f"report {lr:g}", TrialConfig(net=LeNetConfig(dropout=0.3), recipe=recipe))


SPACE = Space(suggest=suggest, first_rung_epochs=1, name="hill", sampler="tpe", pruner="halving")
LEADING = replace(SPACE, baselines=[_baseline(lr) for lr in (0.009, 0.01, 0.011)])
"""The same with the best settings there are as baselines."""


def hill(task: Task) -> Iterator[Message]:
    for epoch in range(1, task.epochs + 1):
        value = accuracy(task.config) - 0.1 / epoch
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value))
    yield TrialEnd(attempt=task.attempt, state="ended")


def proposals(study: Study, numbers: Sequence[int]) -> list[dict[str, object]]:
    """What a study proposes one after the other, each told before the next."""
    made = []
    for number in numbers:
        proposal = study.propose(number)
        made.append(proposal.params)
        study.finish(number, "value", accuracy(proposal.config))
    return made


@pytest.mark.parametrize("over", [True, False], ids=["over", "still running"])
def test_baselines_leave_no_trace_in_what_is_proposed(tmp_path: Path, over: bool) -> None:
    with_baselines = Study(tmp_path / "with.log", LEADING, 7)
    for number, baseline in enumerate(LEADING.baselines):
        with_baselines.enter(started(number, Proposal(baseline.config, {}, {})))
        with_baselines.add_undrawn(number)
        with_baselines.report(number, 1, 0.6)
        if over:
            with_baselines.finish(number, with_baselines.lesson(number, "done", unfit=False), 0.6)
    numbers = range(3, 28)
    assert proposals(with_baselines, numbers) == proposals(Study(tmp_path / "without.log", SPACE, 7), numbers)


def sampled(
    root: Path, space: Space, body: Callable[[Task], Iterator[Message]], trials: int, seed: int
) -> SweepHistory:
    """A sweep of so many sampled trials, after the space's baselines."""
    whole = spec(trials=trials + len(space.baselines), max_epochs=3, baseline_epochs=3, seed=seed)
    desk = open_desk(root / f"{space.name}-{len(space.baselines)}-{seed}", space, whole)
    InlineRunner().run(desk.director, body)
    return desk.director.history


def test_leading_baselines_do_not_make_the_search_worse(tmp_path: Path) -> None:
    """Sampled trials 10 to 30 of whole sweeps, pruned ones included, by the worth of their settings."""

    def found(space: Space) -> float:
        values = []
        for seed in range(5):
            history = sampled(tmp_path, space, hill, 30, seed)
            trials = [trial for trial in history.trials.values() if not trial.started.baseline]
            values += [accuracy(TrialConfig.model_validate(trial.started.config)) for trial in trials[10:]]
        return mean(values)

    without, beside = found(SPACE), found(LEADING)
    assert beside > without - 0.02, "they used to cost .27"


def diverges_above(limit: float) -> Callable[[Task], Iterator[Message]]:
    def body(task: Task) -> Iterator[Message]:
        for message in hill(task):
            if isinstance(message, EpochReport) and message.epoch > 1 and task.config.recipe.lr > limit:
                yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason="train_loss is nan")
                return
            yield message

    return body


def test_a_region_that_diverges_is_left(tmp_path: Path) -> None:
    """Learning rates above .05 diverge, which a third of random ones are; told as nothing, 41 % of these did."""
    later = []
    for seed in range(6):
        unpruned = replace(SPACE, first_rung_epochs=9, name="cliff")
        history = sampled(tmp_path, unpruned, diverges_above(0.05), 50, seed)
        later += [trial.end is not None and trial.end.diverged for trial in list(history.trials.values())[30:]]
    assert mean(later) <= 0.1


def test_the_journal_records_what_the_sampler_was_told(tmp_path: Path) -> None:
    def body(task: Task) -> Iterator[Message]:
        if task.trial == 4:
            yield TrialEnd(attempt=task.attempt, state="failed", reason="a fault of its own")
        elif task.trial == 5:
            yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason="train_loss is nan")
        else:
            yield from good_body(task)

    values = sampled(tmp_path, LEADING, body, 9, seed=7).trials.values()
    assert {trial.end.told for trial in values if trial.started.baseline and trial.end} == {"nothing"}
    told = {(trial.state, trial.end.told) for trial in values if trial.end and not trial.started.baseline}
    assert told == {("done", "value"), ("pruned", "pruned"), ("failed", "nothing"), ("failed", "worst")}


def started(number: int, proposal: Proposal) -> TrialStarted:
    return TrialStarted(
        trial=number, config_id="0", config=proposal.config.model_dump(mode="json"), seed=0, epochs=3,
        params=proposal.params, distributions=proposal.distributions,
    )  # fmt: skip


def ended(number: int, told: str, best: float) -> TrialEnded:
    content = {"trial": number, "state": "done", "best": {"best_val_accuracy": best}, "epochs": 3, "told": told}
    return TrialEnded.model_validate(content)


def test_a_resume_tells_what_was_told_whatever_todays_rule_says(tmp_path: Path) -> None:
    """Twelve trials are done; the journal says that the sampler was told nothing of the last two."""
    study = Study(tmp_path / "first.log", SPACE, 7)
    events: list[TrialStarted | TrialEnded] = []
    for number in range(12):
        proposal = study.propose(number)
        told: Told = "value" if number < 10 else "nothing"
        study.finish(number, told, accuracy(proposal.config))
        events += [started(number, proposal), ended(number, told, accuracy(proposal.config))]
    expected = study.propose(12).params
    assert Study(tmp_path / "again.log", SPACE, 7, events).propose(12).params == expected


@pytest.mark.parametrize("seed", range(4))
def test_running_trials_count_for_the_parameters_that_they_have(tmp_path: Path, seed: int) -> None:
    """In a space of conditional parameters: a study laid anew beside them proposes what the living one would."""
    conditional = only_sampled()
    study = Study(tmp_path / "living.log", conditional, seed)
    events: list[TrialStarted | TrialEnded] = []
    for number in range(20):
        proposal = study.propose(number)
        events.append(started(number, proposal))
        if number < 15:
            value = number * 7 % 15 / 15
            study.finish(number, "value", value)
            events.append(ended(number, "value", value))
    expected = study.propose(20).params
    assert Study(tmp_path / "again.log", conditional, seed, events).propose(20).params == expected
