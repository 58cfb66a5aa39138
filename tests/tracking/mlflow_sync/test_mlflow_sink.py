"""Exactly once in MLflow, on a real SQLite store read back by SQL."""

import json
import logging
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.tracking.small_sweep import SWEEP_ID, Stored, Sweep
from tracking.errors import TrackingError
from tracking.mlflow_sync.default_store import default_path, default_uri
from tracking.mlflow_sync.experiment import experiment_page
from tracking.mlflow_sync.sink import MlflowSink
from tracking.mlflow_sync.upkeep import find_mlflow_run, opened
from tracking.record.events import (
    Act,
    AttemptStarted,
    EpochDone,
    Lengthened,
    TrialEnded,
    TrialPaused,
    TrialStarted,
    TrialUnpaused,
)
from tracking.record.folder_lock import FolderHeldError, hold_folder
from tracking.record.history import SweepHistory
from tracking.record.journal import read
from tracking.record.layout import SweepFolder

pytestmark = pytest.mark.timeout(120)

NewSink = Callable[[], MlflowSink]


def test_a_whole_sweep_stands_there_once_after_two_replays(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.whole()
    new_sink().sync()
    assert stored.points() == pytest.approx(sweep.points, abs=0, rel=0)
    assert set(stored.runs()) == {SWEEP_ID, *(f"{SWEEP_ID}/{number}" for number in range(3))}
    before = stored.query("SELECT * FROM metrics"), stored.query("SELECT * FROM runs")
    new_sink().sync()
    assert (stored.query("SELECT * FROM metrics"), stored.query("SELECT * FROM runs")) == before


def test_runs_tell_state_times_and_where_they_come_from(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.whole()
    new_sink().sync()
    runs = stored.runs()
    times = {(event.event, getattr(event, "trial", None)): event.time_ms for event in read(sweep.folder.journal)}
    assert runs[f"{SWEEP_ID}/1"] == ("FINISHED", times["trial", 1], times["end", 1], "0001 lenet")
    assert runs[f"{SWEEP_ID}/0"][3] == "LENET_1"
    tags = stored.tags(f"{SWEEP_ID}/1")
    parent = stored.query(f"SELECT run_uuid FROM tags WHERE key = 'trial.key' AND value = '{SWEEP_ID}'")[0][0]
    expected = {
        "sweep": "night", "trial": "1", "state": "pruned", "reason": "0.31 under the cut 0.38", "seed": "7",
        "config.id": "c1", "versions": "torch 2.14.1", "mlflow.source.git.commit": "abc123", "faces": "SYNTHETIC",
        "dataset": "synthetic faces", "dataset.fingerprint": "00ff00ff00ff00ff", "mlflow.parentRunId": parent,
    }  # fmt: skip
    assert {key: tags.get(key) for key in expected} == expected
    assert stored.tags(f"{SWEEP_ID}/0")["baseline"] == "LENET_1"
    query = "SELECT key, value FROM params p JOIN runs r ON r.run_uuid = p.run_uuid WHERE r.name = '0001 lenet'"
    params = dict(stored.query(query))
    assert params == {"net.name": "lenet", "net.dropout": "0.5", "recipe.lr": "0.01", "recipe.ema_decay": "null"}
    parent_tags = stored.tags(SWEEP_ID)
    assert (parent_tags["state"], parent_tags["trials.done"], parent_tags["trials.pruned"]) == ("done", "2", "1")


def test_a_trial_without_an_epoch_yet_has_its_parameters(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.start()
    sweep.trial(0)
    new_sink().sync()
    params = dict(stored.query("SELECT key, value FROM params"))
    assert params == {"net.name": "lenet", "net.dropout": "0.5", "recipe.lr": "0.01", "recipe.ema_decay": "null"}


def test_files_of_a_trial_are_kept_but_for_its_machinery(sweep: Sweep, new_sink: NewSink, out: Path) -> None:
    folder = sweep.folder.trial(1).create()
    for path in (folder.config, folder.best, folder.last, folder.curves, folder.verdict):
        path.write_bytes(path.name.encode())
    (folder.root / ".curves.png.123").write_bytes(b"half")
    sweep.whole()
    new_sink().sync()
    kept = sorted((out / "mlartifacts" / "lenet_space").glob("*/artifacts/*"))
    assert [path.name for path in kept if path.name != "spec.json"] == ["best.safetensors", "config.json", "curves.png"]
    assert [path.name for path in kept].count("spec.json") == 1
    assert [path.read_bytes() for path in kept if path.name == "curves.png"] == [b"curves.png"]


def test_a_draw_that_came_to_nothing_is_a_failed_run_with_what_was_drawn(
    sweep: Sweep, new_sink: NewSink, stored: Stored
) -> None:
    sweep.start()
    sweep.write(
        TrialStarted(time_ms=sweep.tick(), trial=0, config_id="", config={}, seed=7, epochs=3, params={"lr": 0.01}),
        TrialEnded(time_ms=sweep.tick(), trial=0, state="failed", epochs=0, reason="suggest: ValueError: no such net"),
    )
    sweep.finish()
    new_sink().sync()
    status, _, _, name = stored.runs()[f"{SWEEP_ID}/0"]
    assert (status, name) == ("FAILED", "0000 refused draw")
    assert stored.query("SELECT key, value FROM params") == [("drawn.lr", "0.01")]
    assert stored.tags(f"{SWEEP_ID}/0")["reason"] == "suggest: ValueError: no such net"


def test_a_trial_resumed_goes_on_in_its_run(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.start()
    sweep.trial(0)
    sweep.epoch(0, 1)
    sweep.end(0, "stopped", reason="SIGTERM", final=False)
    sweep.stop()
    new_sink().sync()
    assert {key: run[0] for key, run in stored.runs().items()} == {SWEEP_ID: "KILLED", f"{SWEEP_ID}/0": "KILLED"}
    sweep.write(sweep.driver(resumed=True))
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="resumed"))
    new_sink().sync()
    assert {run[0] for run in stored.runs().values()} == {"RUNNING"}
    assert stored.tags(f"{SWEEP_ID}/0")["state"] == "running"
    sweep.epoch(0, 2)
    sweep.end(0, "failed", reason="diverged at epoch 3 step 17")
    sweep.finish()
    new_sink().sync()
    runs = stored.runs()
    assert (runs[f"{SWEEP_ID}/0"][0], runs[SWEEP_ID][0]) == ("FAILED", "FINISHED")
    assert runs[f"{SWEEP_ID}/0"][2] > runs[f"{SWEEP_ID}/0"][1]  # type: ignore[operator]
    assert stored.points() == sweep.points


def test_an_attempt_is_counted_also_before_its_first_epoch(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.start()
    sweep.trial(0)
    sweep.epoch(0, 1)
    sink = new_sink()
    sink.sync()
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="its worker died"))
    sink.sync()
    assert stored.tags(f"{SWEEP_ID}/0")["attempt"] == "1"
    sweep.epoch(0, 2)
    sweep.end(0)
    sweep.finish()
    for last in (sink, new_sink()):
        last.sync()
        assert stored.tags(f"{SWEEP_ID}/0")["attempt"] == "1"
    assert stored.points() == sweep.points


def test_a_paused_trial_waits_in_its_run_and_goes_on_there(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    """Paused and taken up twice, sent at each turn and once more as a whole: every point once, in one run."""
    sweep.start()
    sweep.trial(0)
    for epoch, reason in ((1, "person"), (2, "rung")):
        sweep.epoch(0, epoch)
        paused = {"time_ms": sweep.tick(), "trial": 0, "epoch": epoch, "reason": reason, "who": "ana@here"}
        sweep.write(TrialPaused.model_validate(paused))
        new_sink().sync()
        assert stored.runs()[f"{SWEEP_ID}/0"][0] == "SCHEDULED"
        words = {"person": "paused by ana@here", "rung": "waits at the rung"}[reason]
        tags = stored.tags(f"{SWEEP_ID}/0")
        assert (tags["state"], tags["reason"]) == ({"person": "paused", "rung": "waiting"}[reason], words)
        sweep.write(TrialUnpaused(time_ms=sweep.tick(), trial=0))
        sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=epoch, reason="unpaused"))
        new_sink().sync()
        assert stored.runs()[f"{SWEEP_ID}/0"][0] == "RUNNING"
        assert stored.tags(f"{SWEEP_ID}/0")["state"] == "running"
    sweep.epoch(0, 3)
    sweep.end(0)
    sweep.finish()
    for _ in range(2):
        new_sink().sync()
    assert {run[0] for run in stored.runs().values()} == {"FINISHED"}
    assert stored.points() == sweep.points


def test_following_while_the_journal_grows(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.start()
    sink = new_sink()
    sink.start()
    for number in range(2):
        sweep.trial(number)
        for epoch in (1, 2, 3):
            sweep.epoch(number, epoch)
            sink.wake()
            time.sleep(0.15)
        sweep.end(number)
        sink.wake()
    sweep.finish()
    assert sink.close(lambda: 30) == 0
    assert stored.points() == sweep.points
    assert {run[0] for run in stored.runs().values()} == {"FINISHED"}


def _sync_until_killed(out: Path, journal: Path, calls: int, acted_upon: bool) -> None:
    """A process's sink that is killed at its n-th writing call, before or after the store acted upon it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    left = [calls]

    def dying(method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0 and not acted_upon:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = method(*args, **kwargs)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call

    for name in ("create_experiment", "create_run", "log_batch", "update_run_info"):
        setattr(SqlAlchemyStore, name, dying(getattr(SqlAlchemyStore, name)))
    MlflowSink(journal, tracking_uri=default_uri(out), out=out, on_warning=print).sync()


def _was_killed(out: Path, journal: Path, calls: int, acted_upon: bool) -> bool:
    process = multiprocessing.get_context("fork").Process(
        target=_sync_until_killed, args=(out, journal, calls, acted_upon)
    )
    process.start()
    process.join(60)
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("acted_upon", [False, True])
@pytest.mark.parametrize("every_call", [range(4, 6), pytest.param(range(1, 15), marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [Sweep.whole, Sweep.grouped])
def test_killed_at_any_call_and_at_any_length_of_the_journal(
    tmp_path: Path, sweep: Sweep, empty_store: Path, every_call: range, acted_upon: bool, kind: Callable[[Sweep], None]
) -> None:
    kind(sweep)
    lines = sweep.folder.journal.read_bytes().splitlines(keepends=True)
    chance = random.Random(5)
    kills = 0
    for calls in every_call:
        out = tmp_path / str(calls)
        out.mkdir()
        shutil.copy(empty_store, default_path(out))
        journal = SweepFolder(out / "night").create().journal
        journal.write_bytes(b"".join(lines[: chance.randint(2, len(lines))]))
        kills += _was_killed(out, journal, chance.randint(1, 6), acted_upon)
        journal.write_bytes(b"".join(lines))
        kills += _was_killed(out, journal, calls, acted_upon)
        MlflowSink(journal, tracking_uri=default_uri(out), out=out, on_warning=pytest.fail).sync()
        after = Stored(default_path(out))
        assert after.points() == pytest.approx(sweep.points)
        assert [run[0] for run in after.runs().values()] == ["FINISHED"] * (4 if kind == Sweep.whole else 6)
    assert kills > len(every_call)


def test_an_answer_lost_after_the_run_was_made(
    sweep: Sweep, new_sink: NewSink, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MlflowClient.create_run
    lost = []

    def create_and_lose_the_answer(self: MlflowClient, *args: object, **kwargs: object) -> object:
        run = made(self, *args, **kwargs)  # type: ignore[arg-type]
        if len(lost) < 2:
            lost.append(run)
            raise ConnectionError("reset by peer")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", create_and_lose_the_answer)
    sweep.whole()
    for _ in range(2):
        with pytest.raises(TrackingError, match="reset by peer"):
            new_sink().sync()
    new_sink().sync()
    assert len(lost) == 2
    assert stored.points() == sweep.points
    assert len(stored.runs()) == 4


def test_a_run_made_after_its_answer_was_given_up(sweep: Sweep, new_sink: NewSink, stored: Stored, out: Path) -> None:
    """The slow server's own create comes when the retry has made the run already: one of the two goes."""
    sweep.whole()
    new_sink().sync()
    client = MlflowClient(default_uri(out))
    experiment = client.get_experiment_by_name("lenet_space")
    assert experiment is not None
    client.create_run(experiment.experiment_id, 1, {"trial.key": f"{SWEEP_ID}/1"})
    new_sink().sync()
    assert stored.points() == sweep.points
    assert len(stored.runs()) == 4


def test_an_experiment_that_a_person_renamed_keeps_its_runs(
    sweep: Sweep, new_sink: NewSink, stored: Stored, out: Path
) -> None:
    sweep.start()
    sweep.trial(0)
    sweep.epoch(0, 1)
    new_sink().sync()
    client = MlflowClient(default_uri(out))
    renamed = client.get_experiment_by_name("lenet_space")
    assert renamed is not None
    client.rename_experiment(renamed.experiment_id, "mine")
    sweep.epoch(0, 2)
    sweep.end(0)
    sweep.trial(1)
    sweep.finish()
    new_sink().sync()
    assert set(stored.runs()) == {SWEEP_ID, f"{SWEEP_ID}/0", f"{SWEEP_ID}/1"}
    assert stored.points() == sweep.points
    assert [one.name for one in client.search_experiments()] == ["mine", "Default"]
    started = SweepHistory.load(sweep.folder.journal).started
    assert f"/#/experiments/{renamed.experiment_id}/runs" in experiment_page(default_uri(out), started)


def test_a_run_that_a_person_deleted_stays_deleted(sweep: Sweep, new_sink: NewSink, stored: Stored, out: Path) -> None:
    sweep.whole()
    new_sink().sync()
    client = MlflowClient(default_uri(out))
    (run_id,) = stored.query(f"SELECT run_uuid FROM tags WHERE key = 'trial.key' AND value = '{SWEEP_ID}/1'")[0]
    client.delete_run(str(run_id))
    warnings: list[str] = []
    sink = MlflowSink(sweep.folder.journal, tracking_uri=default_uri(out), out=out, on_warning=warnings.append)
    assert sink.sync() == 1
    assert f"{SWEEP_ID}/1" not in stored.runs()
    restore = f"MLFLOW_TRACKING_URI={default_uri(out)} mlflow runs restore --run-id {run_id}"
    assert len(warnings) == 1
    assert "1 of its runs were deleted in MLflow, as trial 1" in warnings[0]
    assert restore in warnings[0]
    started = SweepHistory.load(sweep.folder.journal).started
    with pytest.raises(TrackingError, match=re.escape(restore)), opened(default_uri(out)) as there:
        find_mlflow_run(there, started, 1)
    client.restore_run(str(run_id))
    assert new_sink().sync() == 0
    assert f"{SWEEP_ID}/1" in stored.runs()


def test_epochs_that_were_trained_again_reach_a_run_that_was_deleted_meanwhile(
    sweep: Sweep, new_sink: NewSink, out: Path
) -> None:
    sweep.start()
    sweep.trial(0)
    for epoch in (1, 2, 3):
        sweep.epoch(0, epoch)
    sweep.end(0)
    sweep.finish()
    new_sink().sync()
    client = MlflowClient(default_uri(out))
    run_id = find_mlflow_run(client, SweepHistory.load(sweep.folder.journal).started, 0)
    client.delete_run(run_id)
    change = Lengthened(trial=0, epochs=4, epoch=2)
    sweep.write(
        Act(time_ms=sweep.tick(), act="a", verb="extend", who="ana", asked_ms=0, answer="", lengthened=(change,)),
        sweep.driver(resumed=True),
        AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="extended"),
    )
    for epoch in (3, 4):
        sweep.epoch(0, epoch)
    sweep.end(0)
    sweep.finish()
    sink = MlflowSink(sweep.folder.journal, tracking_uri=default_uri(out), out=out, on_warning=lambda _: None)
    assert sink.sync() == 1, "deleted"
    client.restore_run(run_id)
    new_sink().sync()
    steps = [point.step for point in client.get_metric_history(run_id, "val_accuracy")]
    assert sorted(steps) == [1, 2, 3, 3, 4]


def test_an_extension_leaves_the_result_as_it_is_until_the_sweep_ends_again(
    sweep: Sweep, new_sink: NewSink, stored: Stored
) -> None:
    """Trial 2 is the best until it is extended, and then counts by its first epoch alone."""
    for number, right in enumerate((50, 60, 70)):
        sweep.predictions(number, right)
    sweep.whole()
    new_sink().sync()
    before = stored.points(), stored.runs(), stored.tags(SWEEP_ID)
    assert (before[0][SWEEP_ID, "best_val_accuracy", 0], before[2]["winner"]) == (0.7, "2")
    change = Lengthened(trial=2, epochs=6, epoch=1)
    sweep.write(
        Act(time_ms=sweep.tick(), act="a", verb="extend", who="ana", asked_ms=0, answer="", lengthened=(change,))
    )
    new_sink().sync()
    assert (stored.points(), stored.runs(), stored.tags(SWEEP_ID)) == before


def test_a_lead_over_the_baseline_ends_when_the_baseline_is_the_best(
    sweep: Sweep, new_sink: NewSink, out: Path
) -> None:
    """Trial 0 is the baseline, and trial 2 the best until the baseline is extended."""

    def lead() -> float:
        client = MlflowClient(default_uri(out))
        run_id = find_mlflow_run(client, SweepHistory.load(sweep.folder.journal).started, None)
        return float(client.get_run(run_id).data.metrics["best_expected_lead_over_baseline"])

    for number, right in enumerate((50, 60, 70)):
        sweep.predictions(number, right)
    sweep.whole()
    new_sink().sync()
    assert lead() == pytest.approx(0.2, abs=0.01), "70 and 50 of 100 faces"
    change = Lengthened(trial=0, epochs=6, epoch=3)
    sweep.write(
        Act(time_ms=sweep.tick(), act="a", verb="extend", who="ana", asked_ms=0, answer="", lengthened=(change,)),
        sweep.driver(resumed=True),
        AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="extended"),
    )
    sweep.epoch(0, 6)
    sweep.predictions(0, 80, epoch=6)
    sweep.end(0)
    sweep.finish()
    for _ in range(2):
        new_sink().sync()
        assert math.isnan(lead())


def test_a_sweep_that_somebody_drives_is_not_sent_from_beside(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.whole()
    with hold_folder(sweep.folder.root), pytest.raises(FolderHeldError, match=f"pid {os.getpid()}"):
        new_sink().sync()
    assert stored.runs() == {}
    assert new_sink().sync() == 0


def test_what_mlflow_refuses_does_not_hold_up_the_rest(sweep: Sweep, out: Path, stored: Stored) -> None:
    sweep.start()
    sweep.trial(0)
    sweep.write(EpochDone(time_ms=sweep.tick(), trial=0, epoch=1, metrics={"a#name it cannot take": 1.0}))
    sweep.trial(1)
    sweep.epoch(1, 1)
    warnings: list[str] = []
    sink = MlflowSink(sweep.folder.journal, tracking_uri=default_uri(out), out=out, on_warning=warnings.append)
    sink.start()
    time.sleep(3)
    assert sink.close(lambda: 20) == 0
    assert (f"{SWEEP_ID}/1", "val_accuracy", 1) in stored.points()
    assert "trial 0 of night is left out" in warnings[-1]


@pytest.mark.parametrize("revision", ["451aebb31d03", "ffffffffffff"])
def test_a_store_of_another_schema_is_left_as_it_is_and_the_way_out_is_told(
    out: Path, sweep: Sweep, new_sink: NewSink, revision: str
) -> None:
    sweep.whole()
    with closing(sqlite3.connect(default_path(out))) as connection:
        connection.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
        connection.commit()
    before = default_path(out).read_bytes()
    way_out = re.escape(f"'mlflow db upgrade {default_uri(out)}'")
    with pytest.raises(TrackingError, match=rf"found version {revision}.*{way_out}.*newer MLflow than"):
        new_sink().sync()
    with pytest.raises(TrackingError, match=way_out), opened(default_uri(out)):
        pass
    assert default_path(out).read_bytes() == before
    assert not list(out.glob("mlflow.db.unreadable*"))


def test_what_was_spooled_is_sent_once_the_store_can_be_opened(
    out: Path, sweep: Sweep, stored: Stored, new_sink: NewSink
) -> None:
    with closing(sqlite3.connect(default_path(out))) as connection:
        (head,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.commit()
        warnings: list[str] = []
        sink = MlflowSink(sweep.folder.journal, tracking_uri=default_uri(out), out=out, on_warning=warnings.append)
        sweep.start()
        sink.start()
        while not warnings:
            time.sleep(0.05)
        sweep.trial(0)
        connection.execute(f"UPDATE alembic_version SET version_num = '{head}'")
        connection.commit()
    sweep.epoch(0, 1)
    assert sink.close(lambda: 30) == 0
    assert "its results stay in" in warnings[0]
    assert stored.points() == sweep.points


@pytest.mark.slow
def test_a_damaged_store_is_set_aside_and_refilled_from_every_sweep(out: Path, stored: Stored) -> None:
    sweeps = [Sweep(SweepFolder(out / letter), sweep_id=letter * 32) for letter in ("a", "b")]
    for sweep in sweeps:
        sweep.whole()
    default_path(out).write_bytes(b"no database at all " * 99)
    warnings: list[str] = []
    journal = sweeps[0].folder.journal
    MlflowSink(journal, tracking_uri=default_uri(out), out=out, on_warning=warnings.append).sync()
    assert stored.points() == sweeps[0].points | sweeps[1].points
    (aside,) = out.glob("mlflow.db.unreadable-*[0-9]")
    assert len(warnings) == 1
    assert str(aside) in warnings[0]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.5])
def test_a_store_killed_in_its_migration_does_not_hold_up_the_next(
    tmp_path: Path, sweep: Sweep, seconds: float
) -> None:
    """MLflow's own making of a store in place, as any other program of the user's would do it."""
    sweep.whole()
    path = default_path(tmp_path)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: MlflowClient(default_uri(tmp_path)).search_experiments()
    )
    process.start()
    while not path.exists():
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.join()
    MlflowSink(sweep.folder.journal, tracking_uri=default_uri(tmp_path), out=tmp_path, on_warning=print).sync()
    print("set aside:", list(tmp_path.glob("*.unreadable-*")))
    assert Stored(path).points() == sweep.points


def test_a_server_that_does_not_answer_is_said_at_once_and_not_waited_for(sweep: Sweep, out: Path) -> None:
    sweep.whole()
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()  # takes the connection and never answers
        uri = f"http://user:secret@127.0.0.1:{mute.getsockname()[1]}"
        warnings: list[tuple[float, str]] = []
        begin = time.monotonic()
        sink = MlflowSink(
            sweep.folder.journal, tracking_uri=uri, out=out,
            on_warning=lambda text: warnings.append((time.monotonic() - begin, text)),
        )  # fmt: skip
        sink.start()
        while not warnings and time.monotonic() - begin < 8:
            time.sleep(0.05)
        waking = time.monotonic()
        sink.wake()
        assert time.monotonic() - waking < 0.05
        closing = time.monotonic()
        backlog = sink.close(lambda: 60)
        assert time.monotonic() - closing < 5
    assert backlog == len(list(read(sweep.folder.journal)))
    assert len(warnings) == 1
    assert warnings[0][0] < 5
    assert "secret" not in warnings[0][1]


def test_nothing_is_said_when_all_is_well(
    sweep: Sweep, new_sink: NewSink, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    sweep.whole()
    new_sink().sync()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_page_has_a_view_of_best_values_states_and_reasons(
    sweep: Sweep, new_sink: NewSink, stored: Stored, out: Path
) -> None:
    sweep.whole()
    new_sink().sync()
    client = MlflowClient(default_uri(out))
    (tags,) = [one.tags for one in client.search_experiments() if one.name == "lenet_space"]
    view = json.loads(tags["mlflow.sharedViewState.fer-sweeps"])
    # As the page itself writes one: name, createdAt and state are what it insists on.
    assert view["name"] == "Best values"
    state = json.loads(view["state"])
    assert {"metrics.`best_val_accuracy`", "tags.`state`", "tags.`reason`"} <= set(state["selectedColumns"])
    (experiment,) = [one.experiment_id for one in client.search_experiments() if one.name == "lenet_space"]
    ranked = client.search_runs([experiment], order_by=[f"{state['orderByKey']} DESC"])
    assert [run.data.tags.get("trial") for run in ranked] == ["2", "1", "0", None]
    client.delete_experiment_tag(experiment, "mlflow.sharedViewState.fer-sweeps")
    new_sink().sync()
    assert "mlflow.sharedViewState.fer-sweeps" not in client.get_experiment(experiment).tags


def test_a_server_that_is_not_there_is_told_with_the_network_s_own_reason(sweep: Sweep, out: Path) -> None:
    sweep.whole()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    sink = MlflowSink(sweep.folder.journal, tracking_uri=uri, out=out, on_warning=pytest.fail)
    with pytest.raises(
        TrackingError, match=rf"{uri} does not accept results \(\[Errno 111\] Connection refused\); \d+ events"
    ):
        sink.sync()


@pytest.mark.slow
def test_eight_sweeps_write_one_store_while_a_reader_looks(tmp_path: Path, empty_store: Path) -> None:
    """Eight drivers with one `--out`, each with its own journal: every point of every sweep, once."""
    shutil.copy(empty_store, default_path(tmp_path))
    sweeps = [Sweep(SweepFolder(tmp_path / f"night{number}"), sweep_id=f"{number:032x}") for number in range(8)]
    for sweep in sweeps:
        sweep.whole()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_sync_all, args=(tmp_path, sweep.folder.journal)) for sweep in sweeps]
    for writer in writers:
        writer.start()
    looks = 0
    while any(writer.is_alive() for writer in writers):
        MlflowClient(default_uri(tmp_path)).search_experiments()
        looks += 1
    assert [writer.exitcode for writer in writers] == [0] * 8
    assert looks > 1
    expected: dict[tuple[str, str, int], float] = {}
    for sweep in sweeps:
        expected |= sweep.points
    assert Stored(default_path(tmp_path)).points() == pytest.approx(expected, abs=0, rel=0)


def _sync_all(out: Path, journal: Path) -> None:
    MlflowSink(journal, tracking_uri=default_uri(out), out=out, on_warning=pytest.fail).sync()
