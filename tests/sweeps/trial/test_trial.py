"""One real trial: what it leaves in its folder, and how it continues from there."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fer_data import AugmentConfig, DataOptions, open_cached, prepare
from fer_data.augmentation import batches
from fer_models import LeNetConfig, ModelError, Recipe
from fer_models.configs.transfer_config import Transfer
from fer_models.nets.registry import build
from fer_models.training import weights
from fer_models.training.evaluate import predict
from fer_models.training.tensor_file import read_tensors
from fer_models.training.weights import load_weights
from sweeps import SweepResult
from sweeps.config import TrialConfig
from sweeps.driver.ray_runner import TrialActor
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from sweeps.trial.run_trial import run_trial
from tracking.record.events import EpochDone
from tracking.record.files import write_json
from tracking.record.layout import TrialFolder
from tracking.record.parameters import count_saved
from tracking.record.predictions import read_predictions

pytestmark = pytest.mark.timeout(120)

EPOCHS = 4


@pytest.fixture
def task(tmp_path: Path, tiny_csv: Path) -> Task:
    recipe = Recipe(optimizer="nesterov", lr=0.01, momentum=0.9, batch_size=8, lr_policy="cosine", ema_decay=0.9)
    config = TrialConfig(net=LeNetConfig(dropout=0.2), recipe=recipe, augment=AugmentConfig(flip=0.5, rotate_deg=5))
    return Task(
        trial=0,
        attempt=0,
        folder=str(tmp_path / "trials/0000"),
        config=config,
        seed=11,
        epochs=EPOCHS,
        faces=str(prepare(tiny_csv)),
    )


def numbers(messages: Iterator[Message]) -> list[tuple[int, float, float, float]]:
    """What must not depend on interruptions: epoch, losses and accuracy of each report."""
    reports = [message for message in messages if isinstance(message, EpochReport)]
    names = ("train_loss", "val_loss", "val_accuracy")
    return [(report.epoch, *(report.metrics[name] for name in names)) for report in reports]  # type: ignore[misc]


def elsewhere(task: Task, name: str, attempt: int = 0) -> Task:
    return task.model_copy(update={"folder": str(Path(task.folder).parent / name), "attempt": attempt})


def cut_short(task: Task, epochs: int) -> None:
    """Run some epochs and leave, as a worker does that is killed while it trains the next."""
    messages = run_trial(task)
    for _ in range(epochs):
        next(messages)
    messages.close()  # type: ignore[attr-defined]


def test_frozen_stages_compute_their_features_once(task: Task, tmp_path: Path) -> None:
    net = build(task.config.net, classes=7, mean_image=np.zeros((48, 48), np.float32), generator=torch.Generator())
    weights.save_weights(net, tmp_path / "w.safetensors", {})
    transfer = Transfer(weights=str(tmp_path / "w.safetensors"), freeze=1)
    config = task.config.model_copy(update={"transfer": transfer, "augment": AugmentConfig()})
    messages = list(run_trial(task.model_copy(update={"config": config})))
    assert [one.epoch for one in messages if isinstance(one, EpochReport)] == [1, 2, 3, 4]
    assert isinstance(messages[-1], TrialEnd)
    assert messages[-1].state == "ended"
    assert list((Path(task.faces).parent / "features").glob("*.train.npy"))


def test_what_a_trial_leaves(task: Task) -> None:
    messages = list(run_trial(task))
    folder = TrialFolder(Path(task.folder))
    assert isinstance(messages[-1], TrialEnd)
    assert (messages[-1].attempt, messages[-1].state) == (0, "ended")
    best = max(message.metrics["val_accuracy"] for message in messages if isinstance(message, EpochReport))
    assert messages[-1].scores["best_val_accuracy"] == pytest.approx(best)
    for path in (folder.best, folder.last, folder.scores, folder.val_probabilities):
        assert path.stat().st_size > 0
    assert messages[-1].undrawn
    assert not list(folder.root.glob("*.png")), "pictures are drawn where they hold no slot"
    assert not folder.previous.exists()

    faces = open_cached(Path(task.faces))
    net = build(LeNetConfig(), classes=7, mean_image=faces.mean_image(), generator=torch.Generator())
    about = load_weights(net, folder.best)
    assert about["dataset.fingerprint"] == faces.fingerprint
    with np.load(folder.val_probabilities) as kept:
        np.testing.assert_allclose(predict(net, faces.val.images), kept["probabilities"], atol=1e-5)
        right = int((kept["probabilities"].argmax(1) == kept["labels"]).sum())
    best = max(message.metrics["val_accuracy"] for message in messages if isinstance(message, EpochReport))
    assert right == round(best * len(faces.val))
    matrix = json.loads(folder.confusion_matrix_json.read_text())
    assert (matrix["n"], np.trace(matrix["counts"])) == (len(faces.val), right)


def test_the_kept_epoch_can_be_that_of_the_lowest_loss(task: Task) -> None:
    recipe = Recipe(lr=1e-4, batch_size=8)  # too low to change an answer, while the loss falls
    config = TrialConfig(net=LeNetConfig(), recipe=recipe, keep_best="val_loss")
    messages = list(run_trial(task.model_copy(update={"config": config})))
    reports = {message.epoch: message.metrics for message in messages if isinstance(message, EpochReport)}
    lowest = min(reports, key=lambda epoch: reports[epoch]["val_loss"])
    assert lowest != max(reports, key=lambda epoch: reports[epoch]["val_accuracy"]), "or this would show nothing"
    folder = TrialFolder(Path(task.folder))
    assert json.loads(folder.confusion_matrix_json.read_text())["epoch"] == lowest
    kept = read_predictions(folder, lowest)
    assert kept is not None
    assert kept.is_right.mean() == pytest.approx(reports[lowest]["val_accuracy"])


@pytest.mark.parametrize("epochs", [1, 3, EPOCHS])
def test_it_goes_on_to_the_same_bits(task: Task, epochs: int) -> None:
    undisturbed = numbers(run_trial(elsewhere(task, "calm")))
    cut_short(task, epochs)
    assert numbers(run_trial(task.model_copy(update={"attempt": 1}))) == undisturbed


def test_what_a_net_costs_is_measured_once_and_kept_by_a_later_attempt(task: Task) -> None:
    asked = task.model_copy(update={"objectives": ("val_accuracy", "parameters", "latency")})
    messages = run_trial(asked)
    first = next(messages)
    messages.close()  # type: ignore[attr-defined]
    assert isinstance(first, EpochReport)
    later = run_trial(asked.model_copy(update={"attempt": 1}))
    again = [message for message in later if isinstance(message, EpochReport)]
    parameters, latency = (first.metrics[name] for name in ("parameters", "latency_milliseconds"))
    assert len(again) == EPOCHS
    assert all(
        one.metrics.items() >= {"parameters": parameters, "latency_milliseconds": latency}.items() for one in again
    )
    assert parameters == count_saved(TrialFolder(Path(task.folder)).best)
    assert 0 < latency < 1000
    untouched = elsewhere(task, "alone")
    assert numbers(iter(again)) == numbers(run_trial(untouched)), "measuring draws no random number"


def test_a_damaged_checkpoint_falls_back_to_the_one_before(task: Task) -> None:
    undisturbed = numbers(run_trial(elsewhere(task, "calm")))
    cut_short(task, 3)
    last = TrialFolder(Path(task.folder)).last
    last.write_bytes(last.read_bytes()[:-1000])
    assert numbers(run_trial(task.model_copy(update={"attempt": 1}))) == undisturbed


class Killed(BaseException):
    """Stands for kill -9: no handler of ours may stop it."""


def killed_at_write(task: Task, number: int, patch: pytest.MonkeyPatch) -> list[EpochReport]:
    """Run a trial whose worker dies just before its file `number` is moved into place; what it has reported."""
    replace, calls, reports = Path.replace, count(1), []

    def dying(path: Path, target: Path) -> Path:
        if next(calls) == number:
            raise Killed
        return replace(path, target)

    patch.setattr(Path, "replace", dying)
    with contextlib.suppress(Killed):
        for message in run_trial(task):
            reports += [message] if isinstance(message, EpochReport) else []
    return reports


@pytest.mark.long
def test_killed_at_any_write_its_files_are_of_the_best_epoch_that_is_recorded(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the machine that it continues on, an epoch that is trained again is no better than the ones before."""
    recipe = Recipe(optimizer="nesterov", lr=0.001, momentum=0.9, batch_size=8)
    here = TrialConfig(net=LeNetConfig(dropout=0.2), recipe=recipe)
    there = here.model_copy(update={"recipe": recipe.model_copy(update={"lr": 1e-12})})
    for number in range(2, 9):
        mine = elsewhere(task, f"killed-{number}").model_copy(
            update={"config": here, "seed": 1, "epochs": 2, "figures": False}
        )
        with monkeypatch.context() as patch:
            told = killed_at_write(mine, number, patch)
        *again, end = run_trial(mine.model_copy(update={"attempt": 1, "config": there, "recorded": tuple(told)}))
        assert isinstance(end, TrialEnd)
        assert end.state == "ended", f"killed at write {number}: {end.reason}"
        recorded = {report.epoch: report for report in [*again, *told] if isinstance(report, EpochReport)}
        best = max(sorted(recorded), key=lambda epoch: recorded[epoch].metrics["val_accuracy"])
        folder = TrialFolder(Path(mine.folder))
        answers = read_predictions(folder, best)
        assert answers is not None, f"killed at write {number}"
        faces = open_cached(Path(task.faces))
        net = build(LeNetConfig(), classes=7, mean_image=faces.mean_image(), generator=torch.Generator())
        assert load_weights(net, folder.best)["epoch"] == str(best), f"killed at write {number}"
        np.testing.assert_allclose(predict(net, faces.val.images), answers.probabilities, atol=1e-5)


@pytest.mark.parametrize("name", ["last.safetensors", "val_probabilities.npz"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_file_system_that_fails_once_costs_an_attempt(
    sweep: Callable[..., SweepResult], name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, faults = Path.replace, iter([OSError(number, os.strerror(number))])

    def failing(path: Path, target: Path) -> Path:
        if target.name == name and (fault := next(faults, None)):
            raise fault
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", failing)
    (trial,) = sweep(trials=1, epochs=2, settings={"recipe.lr": 1e-4}, figures=False, body=run_trial)
    assert trial.state == "done", trial.end
    (attempt,) = trial.attempts
    assert os.strerror(number) in attempt.reason


def test_a_trial_that_continues_reports_no_epoch_without_training_it(task: Task) -> None:
    """Its driver would take the report as the moment to pause it again: a slot that rotates would train nothing."""
    messages = run_trial(task)
    told = [message for message in (next(messages), next(messages)) if isinstance(message, EpochReport)]
    messages.close()  # type: ignore[attr-defined]
    again = numbers(run_trial(task.model_copy(update={"attempt": 1, "recorded": tuple(told)})))
    assert [epoch for epoch, *_ in again] == [3, 4]


def test_with_no_checkpoint_left_whole_it_begins_anew(task: Task) -> None:
    undisturbed = numbers(run_trial(elsewhere(task, "calm")))
    cut_short(task, 3)
    folder = TrialFolder(Path(task.folder))
    for path in (folder.last, folder.previous):
        path.write_bytes(b"")
    assert numbers(run_trial(task.model_copy(update={"attempt": 1}))) == undisturbed


def as_fork(task: Task) -> Task:
    """Continues from the state in the task's folder as that of another trial, with another learning rate."""
    recipe = task.config.recipe.model_copy(update={"lr": 0.002})
    config = task.config.model_copy(update={"recipe": recipe})
    return task.model_copy(update={"attempt": 2, "config": config, "began_from_state": True, "recorded": ()})


def test_a_fork_without_its_state_fails_instead_of_beginning_anew(task: Task) -> None:
    cut_short(task, 1)
    TrialFolder(Path(task.folder)).last.write_bytes(b"")
    (end,) = run_trial(as_fork(task))
    assert isinstance(end, TrialEnd)
    assert end.state == "failed"
    assert "began from another trial's state, so it cannot be trained from its start" in str(end.reason)


def test_a_fork_continues_from_a_state_whose_predictions_were_not_written_yet(task: Task) -> None:
    undisturbed = numbers(run_trial(elsewhere(task, "calm")))
    cut_short(task, 1)
    TrialFolder(Path(task.folder)).val_probabilities.unlink()
    again = numbers(run_trial(as_fork(task)))
    assert again[0] == undisturbed[0]
    assert again[1] != undisturbed[1]


def test_a_fork_trains_the_epochs_after_its_state_though_its_source_trained_them_twice(task: Task) -> None:
    messages = run_trial(elsewhere(task, "first"))
    told = [message for message in (next(messages), next(messages)) if isinstance(message, EpochReport)]
    messages.close()  # type: ignore[attr-defined]
    cut_short(task.model_copy(update={"attempt": 1, "recorded": tuple(told)}), 1)
    again = numbers(run_trial(as_fork(task)))
    assert [epoch for epoch, *_ in again] == [1, 2, 3, 4]
    assert again[0] == numbers(iter(told))[0]
    assert again[1] != numbers(iter(told))[1]


def test_a_fork_whose_plateau_begins_anew_keeps_its_own_reductions(task: Task) -> None:
    # So small a rate changes no weight, so the accuracy never rises.
    recipe = Recipe(lr=1e-20, lr_policy="plateau", gamma=0.1, patience_epochs=0, batch_size=8)
    task = task.model_copy(update={"epochs": 6, "config": task.config.model_copy(update={"recipe": recipe})})
    cut_short(task, 2)
    fork = task.model_copy(update={"attempt": 2, "began_from_state": True, "plateau_from": 2})
    cut_short(fork, 3)
    rates = [one.metrics["learning_rate"] for one in run_trial(fork) if isinstance(one, EpochReport)]
    assert rates == pytest.approx([1e-20, 1e-20, 1e-20, 1e-20, 1e-21, 1e-22], rel=1e-6, abs=0)


def test_the_patience_with_a_worker_does_not_follow_from_reports_that_it_repeats(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next epoch is the first that it trains, and may take hours."""
    patience: list[float] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda seconds, **_: patience.append(seconds))
    cut_short(task, 2)
    worker = TrialActor({"task": as_fork(task).model_dump_json(), "body": run_trial, "mps": None})
    results = [worker.step() for _ in range(EPOCHS)]
    worker.cleanup()
    assert [json.loads(result["message"])["epoch"] for result in results] == [1, 2, 3, 4]
    assert patience[0] == patience[1] == patience[2] > patience[3]


def test_a_verdict_is_obeyed_after_the_epoch(task: Task) -> None:
    messages = run_trial(task)
    next(messages)
    folder = TrialFolder(Path(task.folder))
    write_json(folder.verdict, {"state": "pruned", "reason": "rank 9 of 9"})
    (end,) = list(messages)
    assert isinstance(end, TrialEnd)
    assert end.state == "ended"
    assert end.undrawn
    assert not folder.last.exists(), "what a given-up trial would continue from is the bulk of its folder"


def test_a_worker_that_was_given_up_for_dead_writes_nothing_more(task: Task) -> None:
    abandoned = run_trial(task)
    next(abandoned)
    heir = run_trial(task.model_copy(update={"attempt": 1}))
    next(heir)
    before = TrialFolder(Path(task.folder)).last.read_bytes()
    assert [message for message in abandoned if isinstance(message, EpochReport)] == []
    assert TrialFolder(Path(task.folder)).last.read_bytes() == before


def test_divergence_ends_it_naming_metric_and_step(task: Task) -> None:
    wild = task.config.model_copy(update={"recipe": task.config.recipe.model_copy(update={"lr": 1e30})})
    end = list(run_trial(task.model_copy(update={"config": wild})))[-1]
    assert isinstance(end, TrialEnd)
    assert (end.state, end.diverged) == ("failed", True)
    assert "train_loss is nan at epoch 1 step" in str(end.reason) or "is inf at epoch 1 step" in str(end.reason)


def test_faces_that_are_gone_are_nobodys_fault(task: Task) -> None:
    end = list(run_trial(task.model_copy(update={"faces": "/nowhere"})))[-1]
    assert isinstance(end, TrialEnd)
    assert (end.state, end.diverged) == ("blocked", False)
    assert "the sweep's is nowhere; put the same file there" in str(end.reason)


def test_a_machine_without_the_faces_makes_its_cache_from_the_source(
    task: Task, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "its own"))
    afar = task.model_copy(
        update={
            "faces": f"/on/another/machine/{Path(task.faces).name}",
            "data": DataOptions(source=str(tiny_csv)),
            "epochs": 1,
            "figures": False,
        }
    )
    assert numbers(run_trial(afar)) == numbers(
        run_trial(elsewhere(afar, "here").model_copy(update={"faces": task.faces}))
    )


def test_a_fault_leaves_its_traceback_beside_the_trial(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.trial.build_net.build", lambda *_, **__: 1 / 0)
    end = list(run_trial(task))[-1]
    log = Path(task.folder) / "error.txt"
    assert isinstance(end, TrialEnd)
    assert (end.state, end.diverged) == ("failed", False)
    assert str(log) in str(end.reason)
    assert "Traceback" in log.read_text()


def test_the_next_epoch_is_trained_while_the_checkpoint_is_written(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, save = count(), weights.save_state
    second = threading.Event()
    make = batches.train_batches

    def noticed(*given: Any, **how: Any) -> Any:
        if next(begun) == 1:
            second.set()
        return make(*given, **how)

    def slow(*given: Any) -> None:
        assert second.wait(30), "epoch 2 is not begun before the checkpoint of epoch 1 is on disk"
        save(*given)

    monkeypatch.setattr(batches, "train_batches", noticed)
    monkeypatch.setattr(weights, "save_state", slow)
    assert len(numbers(run_trial(task))) == EPOCHS


def test_left_in_the_middle_of_an_epoch_it_stops_training_at_once(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    make, epochs, steps = batches.train_batches, count(1), count()

    def long_second(*given: Any, **how: Any) -> Iterator[Any]:
        repeats = 100_000 if next(epochs) == 2 else 1
        for batch in make(*given, **how):
            for _ in range(repeats):
                next(steps)
                yield batch

    monkeypatch.setattr(batches, "train_batches", long_second)
    cut_short(task, 1)
    assert next(steps) < 10_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("train")]


@pytest.mark.long
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_killed_at_any_moment_it_has_a_checkpoint_of_every_epoch_that_it_reported(task: Task, kills: int) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    rng = random.Random(0)
    for kill in range(kills):
        mine = elsewhere(task, f"killed-{kill}").model_copy(update={"epochs": 1000})
        reports, told = processes.Pipe(duplex=False)
        worker = processes.Process(target=_tell_epochs, args=(mine, told), daemon=True)
        worker.start()
        told.close()
        reported = [reports.recv() for _ in range(rng.randint(1, 3))]
        time.sleep(rng.uniform(0, 0.1))  # an epoch takes about as long
        worker.kill()
        worker.join()
        with contextlib.suppress(EOFError):
            while True:
                reported.append(reports.recv())
        assert _last_on_disk(mine) >= max(reported)


def _tell_epochs(task: Task, told: Any) -> None:
    torch.set_num_threads(1)
    for message in run_trial(task):
        told.send(message.epoch if isinstance(message, EpochReport) else -1)


def _last_on_disk(task: Task) -> int:
    folder, found = TrialFolder(Path(task.folder)), [0]
    for path in (folder.last, folder.previous):
        with contextlib.suppress(ModelError):
            found.append(json.loads(read_tensors(path)[1]["state"])["epoch"])
    return max(found)


def test_an_epoch_that_is_not_finite_is_reported_and_handed_on(task: Task) -> None:
    done = EpochDone(trial=3, epoch=1, metrics={"val_accuracy": 0.5, "val_loss": float("inf")})
    report = EpochReport(attempt=1, **done.results())
    assert EpochReport.model_validate_json(report.model_dump_json()) == report
    (handed_on,) = Task.model_validate_json(task.model_copy(update={"recorded": (done,)}).model_dump_json()).recorded
    assert handed_on.results() == done.results()
