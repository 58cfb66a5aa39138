"""What a sweep takes from others: `--from NAME` and `--from auto`."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import pytest

from fer_models import AlexNetConfig, Recipe
from sweeps import InputError, Space, SweepResult, TrialConfig
from sweeps.after.report_input import sweep_page
from sweeps.cli.main import main
from sweeps.driver.runner import TrialBody
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.sweeps.fake_trials import config, good_body, refused, verdict_stands
from tests.sweeps.search.test_what_the_sampler_learns import accuracy, diverges_above, hill
from tests.sweeps.search.test_what_the_sampler_learns import suggest as suggest_on_the_hill
from tracking.record.events import SweepStarted
from tracking.record.journal import read

Sweep = Callable[..., SweepResult]


def _small_batches(trial: optuna.Trial) -> TrialConfig:
    drawn = suggest_on_the_hill(trial)
    return drawn.model_copy(update={"recipe": drawn.recipe.model_copy(update={"batch_size": 8})})


HILL = Space(suggest=_small_batches, first_rung_epochs=1, name="hill")


def lr_space(low: float = 0.001, high: float = 0.1, **more: Any) -> Space:
    def suggest(trial: optuna.Trial) -> TrialConfig:
        return config(lr=trial.suggest_float("lr", low, high, log=True))

    return Space(suggest=suggest, name="lrs", pruner="none", **more)


def opening(result: SweepResult) -> SweepStarted:
    first = next(read(result.folder.journal))
    assert isinstance(first, SweepStarted)
    return first


def drawn(result: SweepResult) -> list[dict[str, Any]]:
    return [trial.started.params for trial in result]


def obedient(body: TrialBody) -> TrialBody:
    """As `body`, but a trial that is given up ends."""

    def until_the_verdict(task: Task) -> Iterator[Message]:
        for message in body(task):
            if verdict_stands(task) and isinstance(message, EpochReport):
                yield TrialEnd(attempt=task.attempt, state="ended")
                return
            yield message

    return until_the_verdict


def from_(sweep: Sweep, *names: str, **more: Any) -> SweepResult:
    return sweep(**{"name": "dawn", "learn_from": names, "epochs": 3, "figures": False, **more})


def night(sweep: Sweep, space: Space = HILL, **more: Any) -> SweepResult:
    return sweep(
        **{
            "space": space,
            "body": obedient(hill) if space is HILL else good_body,
            "epochs": 3,
            "trials": 30,
            "figures": False,
            **more,
        }
    )


@pytest.mark.parametrize("sampler", ["tpe", "qmc-tpe"])
def test_a_sweep_that_learns_from_another_begins_where_that_one_ended(sweep: Sweep, sampler: str) -> None:
    night(sweep)

    def first_ten(result: SweepResult) -> float:
        return mean(accuracy(TrialConfig.model_validate(trial.started.config)) for trial in result)

    asked: dict[str, Any] = {"space": HILL, "sampler": sampler, "trials": 10, "seed": 3}
    taught = first_ten(from_(sweep, "night", **asked))
    alone = first_ten(from_(sweep, name="alone", **asked))
    assert taught > alone + 0.1


def test_a_gaussian_process_learns_from_another_sweep_too(sweep: Sweep) -> None:
    night(sweep, trials=12)
    taught = from_(sweep, "night", space=HILL, sampler="gp", trials=2)
    assert [lesson.source for lesson in opening(taught).lessons] == [f"night/{number}" for number in range(12)]
    alone = from_(sweep, space=HILL, sampler="gp", trials=2, name="alone")
    assert drawn(taught) != drawn(alone)


def test_done_pruned_and_diverged_trials_teach_as_own_ones(sweep: Sweep) -> None:
    theirs = night(sweep, body=obedient(diverges_above(0.05)))
    lessons = {lesson.source: lesson for lesson in opening(from_(sweep, "night", space=HILL, trials=1)).lessons}
    told = {f"night/{trial.number}": trial.end.told for trial in theirs if trial.end and trial.end.told != "nothing"}
    assert {source: lesson.told for source, lesson in lessons.items()} == told
    assert set(told.values()) == {"value", "pruned", "worst"}, "the sweep must have every kind"
    for source, lesson in lessons.items():
        trial = theirs[int(source.removeprefix("night/"))]
        assert lesson.params == trial.started.params
        assert lesson.value == (trial.best_accuracy if lesson.told == "value" else None)


def test_a_resume_learns_the_same_when_the_other_sweep_is_gone(sweep: Sweep) -> None:
    theirs = night(sweep)
    asked: dict[str, Any] = {"space": HILL, "pruner": "halving"}  # at its end a promoting sweep completes its best
    whole = from_(sweep, "night", trials=6, **asked)
    from_(sweep, "night", trials=3, name="parts", **asked)
    shutil.rmtree(theirs.folder.root)
    parts = from_(sweep, trials=6, name="parts", resume=True, learn_from=None, **asked)
    assert drawn(parts) == drawn(whole)
    assert parts.history.spec["learn_from"] == ["night"]


def test_the_report_says_what_was_taken(sweep: Sweep) -> None:
    night(sweep, lr_space(), trials=4)
    taught = from_(sweep, "night", space=lr_space(), trials=1)
    tried = from_(sweep, "night", space=lr_space(), sampler="random", trials=1, name="tried")
    assert "<dt>learned from</dt><dd>4 of sweep night</dd>" in sweep_page(taught.folder, taught.history)
    assert "<dt>proposed first</dt><dd>3 of sweep night</dd>" in sweep_page(tried.folder, tried.history)


def test_a_sweep_of_the_same_seed_does_not_draw_again_what_it_learned(sweep: Sweep) -> None:
    theirs = night(sweep, trials=4)
    again = from_(sweep, "night", space=HILL, trials=4)
    assert not [params for params in drawn(again) if params in drawn(theirs)]


def test_values_outside_the_ranges_are_left_out_and_named(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = night(sweep, lr_space())
    inside = [f"night/{trial.number}" for trial in theirs if trial.started.params["lr"] <= 0.01]
    assert 0 < len(inside) < len(theirs)
    taught = from_(sweep, "night", space=lr_space(high=0.01), trials=1)
    assert [lesson.source for lesson in opening(taught).lessons] == inside
    with pytest.raises(InputError, match=r"--from: night: nothing can be taken from it; 30 left out: night/\d+ \(lr 0"):
        from_(sweep, "night", space=lr_space(low=0.2, high=0.3), name="apart")


def test_a_parameter_that_the_other_sweep_lacks_stays_to_be_learned(sweep: Sweep) -> None:
    def suggest(trial: optuna.Trial) -> TrialConfig:
        return config(trial.suggest_float("lr", 0.001, 0.1, log=True), trial.suggest_int("batch_size", 1, 4))

    night(sweep, lr_space(), trials=12)
    wider = Space(suggest=suggest, name="wider", pruner="none")
    lessons = opening(from_(sweep, "night", space=wider, trials=12)).lessons
    assert {tuple(lesson.params) for lesson in lessons} == {("lr",)}
    modelled = from_(sweep, "night", space=wider, sampler="gp", name="modelled", trials=2)
    assert opening(modelled).lessons == (), "a Gaussian process needs every parameter"
    assert drawn(modelled)[0]["lr"] == opening(modelled).offers[0].params["lr"]


def test_a_trial_counts_for_as_many_epochs_as_it_trained(sweep: Sweep) -> None:
    night(sweep, lr_space(), trials=3)
    (shorter, *_) = opening(from_(sweep, "night", space=lr_space(), epochs=4, trials=1)).lessons
    assert (shorter.told, shorter.value, len(shorter.curve)) == ("pruned", None, 3)
    (longer, *_) = opening(from_(sweep, "night", space=lr_space(), epochs=2, trials=1, name="short")).lessons
    assert (longer.told, longer.value, len(longer.curve)) == ("value", longer.curve[2], 2)


def test_scores_on_other_faces_teach_nothing_but_the_best_are_tried_first(sweep: Sweep, tiny_csv: Path) -> None:
    theirs = night(sweep, lr_space(), trials=6)
    best = [trial.started.params for trial in theirs.history.ranked()]
    less = {"data": {"source": str(tiny_csv), "limit_train": 28}, "space": lr_space(), "trials": 4}
    other = from_(sweep, "night", **less)
    assert opening(other).lessons == ()
    assert drawn(other)[:3] == best[:3]
    assert drawn(other)[3] not in best


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_samplers_that_learn_nothing_try_the_best_first(sweep: Sweep, sampler: str) -> None:
    theirs = night(sweep, lr_space(), trials=6)
    tried = from_(sweep, "night", space=lr_space(), sampler=sampler, trials=4)
    assert drawn(tried)[:3] == [trial.started.params for trial in theirs.history.ranked()][:3]


def test_scores_of_another_net_teach_nothing(sweep: Sweep) -> None:
    def suggest(trial: optuna.Trial) -> TrialConfig:
        recipe = Recipe(lr=trial.suggest_float("lr", 0.001, 0.1, log=True), batch_size=8)
        return TrialConfig(net=AlexNetConfig(), recipe=recipe)

    night(sweep, lr_space(), trials=6)
    other = opening(from_(sweep, "night", space=Space(suggest=suggest, name="alex", pruner="none"), trials=1))
    assert (len(other.lessons), len(other.offers)) == (0, 3)


def test_auto_tries_the_best_of_all_sweeps_on_the_same_faces_first(sweep: Sweep, tiny_csv: Path) -> None:
    found = {
        f"{name}/{trial.number}": trial
        for name, seed in (("night", 1), ("dusk", 2))
        for trial in night(sweep, lr_space(), name=name, seed=seed, trials=4)
    }
    night(sweep, lr_space(), name="elsewhere", data={"source": str(tiny_csv), "limit_train": 28}, trials=4, seed=3)
    best = sorted(found, key=lambda source: -(found[source].best_accuracy or 0))[:3]
    started = from_(sweep, "auto", space=lr_space(), trials=4)
    assert [offer.source for offer in opening(started).offers] == best
    assert drawn(started)[:3] == [found[source].started.params for source in best]
    assert opening(started).lessons == ()


def test_a_grid_takes_nothing(sweep: Sweep) -> None:
    night(sweep, lr_space(), trials=2)
    grid = Space(suggest=lambda trial: config(trial.suggest_categorical("lr", [0.01, 0.1])), sampler="grid", name="two")
    with pytest.raises(InputError, match="--from: --sampler grid trains every point"):
        from_(sweep, "night", space=grid)


def test_auto_with_nothing_to_offer_is_no_fault(sweep: Sweep) -> None:
    assert opening(from_(sweep, "auto", space=lr_space(), trials=1)).offers == ()


def command(out: Path, tiny_csv: Path, *more: str) -> int:
    return main(["run", "my_space.py", "--data", str(tiny_csv), "--out", str(out), "--runner", "inline", *more])


def test_every_name_that_teaches_nothing_is_refused_at_once(
    sweep: Sweep, space: str, out: Path, tiny_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night(sweep, lr_space(), trials=2)
    night(sweep, lr_space(), trials=2, name="happy", data={"source": str(tiny_csv), "classes": ["happy", "sad"]})
    night(sweep, replace(lr_space(), suggest=_other_names), trials=2, name="other")
    night(sweep, lr_space(), trials=2, name="begun", time_budget_seconds=1e-9)
    names = "nihgt,dawn,happy,other,begun,night"
    message = refused(capsys, lambda: command(out, tiny_csv, "--name", "dawn", "--from", names))
    for part in (
        "no sweep 'nihgt'",
        "did you mean 'night'?",
        "dawn: is this sweep itself",
        "happy: has the classes Happy, Sad",
        "other: has no parameter in common with this space",
        "begun: has no finished trial that its sampler drew",
    ):
        assert part in message
    assert "night: " not in message
    assert not (out / "dawn").exists()
    assert "auto already means all sweeps" in refused(capsys, lambda: command(out, tiny_csv, "--from", "auto,night"))
    assert "expected names of sweeps" in refused(capsys, lambda: command(out, tiny_csv, "--from", "night,"))


def _other_names(trial: optuna.Trial) -> TrialConfig:
    return config(lr=trial.suggest_float("rate", 0.001, 0.1))


def test_a_dry_run_says_what_will_be_taken(
    sweep: Sweep, space: str, out: Path, tiny_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = night(sweep, lr_space(high=10), trials=12)
    count = sum(params["lr"] <= 0.1 for params in drawn(theirs))
    assert 0 < count < 12
    assert command(out, tiny_csv, "--name", "dawn", "--from", "night", "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"from night: the sampler learns from {count} of 12 trials; {12 - count} left out: night/" in said
    assert not (out / "dawn").exists()


def test_other_sweeps_cannot_be_changed_by_a_resume(sweep: Sweep) -> None:
    night(sweep, lr_space(), trials=2)
    from_(sweep, "night", space=lr_space(), trials=1)
    with pytest.raises(InputError, match="--from: the sweep has"):
        from_(sweep, "auto", space=lr_space(), trials=2, resume=True)
