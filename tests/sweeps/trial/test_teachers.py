"""A sweep's nets teach a trial: `--set distill=NAME`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_data import AugmentConfig, open_cached, prepare
from fer_models import LeNetConfig, Recipe
from fer_models.training.evaluate import predict
from sweeps import Space, SweepResult, TrialConfig, run_sweep
from sweeps.after.ensemble import make_ensemble
from sweeps.cli.main import main, run_main
from sweeps.driver.kept_weights import needed_weights
from sweeps.run_kinds import Ensemble
from sweeps.runs import find_run
from sweeps.trial.messages import EpochReport, Task, TrialEnd
from sweeps.trial.run_trial import run_trial
from sweeps.trial.teachers import taught_labels, teachers_of, weights_sha256
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import refused
from tracking.record.events import EpochDone, Event
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]


def configuration(trial: Any) -> TrialConfig:
    recipe = Recipe(lr=trial.suggest_float("lr", 0.001, 0.02), batch_size=8)
    return TrialConfig(net=LeNetConfig(dropout=0.3), recipe=recipe, augment=AugmentConfig(flip=0.5, mixup=0.2))


SPACE = Space(suggest=configuration)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path, face_cache: Path) -> Path:
    """A sweep of two trials, which are the teachers."""
    out = tmp_path_factory.mktemp("teachers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_CACHE", str(face_cache))
        train(out, tiny_csv, "night", trials=2)
    return out


def train(out: Path, data: Path, name: str, **options: Any) -> SweepResult:
    asked = {"data": data, "trials": 1, "epochs": 2, "runner": "inline", "figures": False, "out": out, **QUIET}
    return run_sweep(SPACE, name=name, **asked | options)


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs"))


@pytest.fixture
def student(out: Path, tiny_csv: Path) -> Callable[..., SweepResult]:
    """A sweep of one trial that is taught by the two of `night`."""

    def run(distill: str = "night", name: str = "student", **options: Any) -> SweepResult:
        settings = {"recipe.distill": distill} | options.pop("settings", {})
        return train(out, tiny_csv, name, settings=settings, **options)

    return run


def recipe_of(result: SweepResult) -> Recipe:
    return Recipe.model_validate(result[0].started.config["recipe"])


def returned(generator: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def numbers(result: SweepResult) -> list[tuple[float, float]]:
    return [(epoch.metrics["train_loss"], epoch.metrics["val_loss"]) for epoch in result[0].epochs]


def test_the_best_trials_of_a_sweep_teach_and_are_recorded(
    student: Callable[..., SweepResult], out: Path, tiny_csv: Path
) -> None:
    result, alone = student(), train(out, tiny_csv, "alone")
    recipe = recipe_of(result)
    assert sorted(recipe.distill.split(",")) == ["night/0", "night/1"]
    files = {f"night/{number}": out / f"night/trials/{number:04d}/best.safetensors" for number in (0, 1)}
    assert recipe.distill_sha256 == tuple(weights_sha256(files[name]) for name in recipe.distill.split(","))
    assert result[0].started.config_id != alone[0].started.config_id
    assert result[0].state == "done"
    weak = student(name="weak", settings={"recipe.distill_share": 1e-9})
    assert numbers(weak) != numbers(result), "the share counts"


def test_an_ensemble_teaches_by_its_weights(student: Callable[..., SweepResult], out: Path) -> None:
    runs = [find_run("night/0", out), find_run("night/1", out)]
    made = make_ensemble(runs, "weighted", "both", out)
    assert isinstance(made.kind, Ensemble)
    teachers = teachers_of(recipe_of(student("both")))
    assert {teacher.run: teacher.share for teacher in teachers} == made.kind.members


def test_teachers_answer_for_the_face_and_its_mirror_image_at_the_temperature(
    student: Callable[..., SweepResult], out: Path, face_cache: Path, tiny_csv: Path
) -> None:
    result = student(settings={"recipe.distill_temperature": 4.0})
    cache = prepare(tiny_csv)
    faces = open_cached(cache)
    task = Task(trial=0, attempt=0, folder=str(out / "student/trials/0000"), faces=str(cache), seed=0, epochs=1,
                config=TrialConfig.parse(result[0].started.config, "config"))  # fmt: skip
    mean = np.zeros((len(faces.train), 7))
    for number in (0, 1):
        run = find_run(f"night/{number}", out)
        mean += predict(run.net(faces), faces.train.images, views="mirror") / 2
    expected = mean ** (1 / 4) / (mean ** (1 / 4)).sum(1, keepdims=True)
    np.testing.assert_allclose(returned(taught_labels(task, cache)), expected, atol=1e-5)


def test_answers_are_kept_so_that_a_resume_needs_no_teacher(
    student: Callable[..., SweepResult], out: Path, tiny_csv: Path
) -> None:
    whole = student()
    history = out / "student/journal.jsonl"
    config = TrialConfig.parse(whole[0].started.config, "config")
    task = Task(trial=0, attempt=0, folder=str(out / "again/trials/0000"), faces=str(prepare(tiny_csv)),
                config=config, seed=whole[0].started.seed, epochs=2)  # fmt: skip
    cut_short = run_trial(task)
    next(cut_short)
    cut_short.close()  # type: ignore[attr-defined]
    shutil.rmtree(out / "night")
    again = [one for one in run_trial(task.model_copy(update={"attempt": 1})) if isinstance(one, EpochReport)]
    assert [(one.metrics["train_loss"], one.metrics["val_loss"]) for one in again] == numbers(whole)
    assert history.is_file()


def test_teachers_that_changed_or_are_gone_are_said(
    student: Callable[..., SweepResult], out: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrialConfig.parse(student()[0].started.config, "config")
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    task = Task(trial=0, attempt=0, folder=str(out / "again/trials/0000"), faces=str(prepare(tiny_csv)), config=config,
                seed=0, epochs=2)  # fmt: skip
    first = out / "night/trials" / f"{int(config.recipe.distill.split(',')[0][-1]):04d}" / "best.safetensors"
    first.write_bytes(first.read_bytes() + b" ")
    assert "a teacher's weights changed since the trial was planned" in ended(task)
    first.unlink()
    assert "a teacher's file cannot be read: No such file" in ended(task)


def ended(task: Task) -> str:
    last = list(run_trial(task))[-1]
    assert isinstance(last, TrialEnd)
    assert last.state == "blocked"
    return str(last.reason)


@pytest.mark.long
def test_rerun_and_ray_give_the_same_to_the_last_bit(
    student: Callable[..., SweepResult], out: Path, no_mlflow: object, capsys: Capture
) -> None:
    inline, on_ray = student(), student(name="on-ray", runner="ray", cpus_per_trial=1)
    assert numbers(inline) == numbers(on_ray)
    assert main(["rerun", "student/0", "--name", "again", "--out", str(out)]) == 0
    assert "again/0 equals student/0 to the last bit" in " ".join(capsys.readouterr().out.split())


@pytest.mark.long
def test_several_workers_are_taught_too(student: Callable[..., SweepResult]) -> None:
    exact = {"augment.mixup": 0.0, "net.dropout": 0.0, "precision": "fp32"}
    alone = student(settings=exact)
    together = student(name="together", settings=exact, workers_per_trial=2)
    np.testing.assert_allclose(numbers(together), numbers(alone), rtol=1e-4)


def test_a_teachers_weights_are_kept_until_its_students_are_done(
    student: Callable[..., SweepResult], out: Path
) -> None:
    student()
    assert needed_weights(out) == {}
    journal = out / "student/journal.jsonl"
    journal.write_text("".join(line for line in journal.open() if '"event":"finished"' not in line))
    assert set(needed_weights(out)) == {("night", 0), ("night", 1)}


def test_all_trials_have_the_same_teachers_although_their_sweep_is_extended(
    student: Callable[..., SweepResult], out: Path
) -> None:
    journal = out / "night/journal.jsonl"

    def unfinished(event: Event, _: SweepHistory) -> None:
        if isinstance(event, EpochDone):
            journal.write_text("".join(line for line in journal.open() if '"event":"finished"' not in line))

    result = student(trials=2, pruner="none", listeners=[unfinished])
    assert [trial.state for trial in result] == ["done", "done"]
    first, second = (trial.started.config["recipe"]["distill"] for trial in result)
    assert first == second


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--set distill=nigth", "distill 'nigth': no sweep 'nigth' in"),
        ("--set distill=nigth", "did you mean 'night'?"),
        ("--set distill=night/7", "night has no trial '7'; it has 0 to 1"),
        ("--set distill=begun", "sweep 'begun' has not finished; finish it, or name trials of it, as begun/0"),
        ("--set distill=night --classes happy,sad", "knows the classes Angry, Disgust"),
        ("--set distill=night --limit-train 28", "and may have seen val faces"),
        ("--set distill=night --fold 1/2", "and may have seen val faces"),
        ("--set distill=night --folds 2", "has seen faces that folds hold out"),
        ("--set distill=bare/0", "bare/0: its weights are not kept"),
        ("--set distill=night --set distill_share=0", "recipe.distill_share"),
        ("--set distill_temperature=3", "recipe.distill_temperature: there is no teacher; give distill=NAME"),
    ],
)
def test_teachers_that_cannot_teach_are_refused(
    words: str, said: str, out: Path, tiny_csv: Path, capsys: Capture
) -> None:
    for name in ("begun", "bare"):
        shutil.copytree(out / "night", out / name)
    for weights in (out / "bare/trials").glob("*/best.safetensors"):
        weights.unlink()
    journal = out / "begun/journal.jsonl"
    journal.write_text("".join(line for line in journal.open() if '"event":"finished"' not in line))
    command = ["lenet_space", "--data", str(tiny_csv), "--out", str(out), "--name", "student", "--runner", "inline"]
    message = refused(capsys, lambda: run_main([*command, "--set", "batch_size=8", *words.split()]))
    assert said in message
    assert not (out / "student").exists()
