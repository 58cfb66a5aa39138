"""Weights reach MLflow at a sweep's end, those of the trials that it keeps, once; what it outgrows is taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.tracking.small_sweep import SWEEP_ID, Stored, Sweep
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.sink import MlflowSink
from tracking.mlflow_sync.upkeep import find_mlflow_run, open_client
from tracking.mlflow_sync.weights import copies_of_weights, remove_copies
from tracking.record.history import SweepHistory

NewSink = Callable[[], MlflowSink]


@pytest.fixture
def client(out: Path) -> MlflowClient:
    return open_client(default_uri(out))


@pytest.fixture
def kept(sweep: Sweep, out: Path, client: MlflowClient) -> Callable[[], dict[int, bytes]]:
    """The weights in MLflow, by trial."""

    def read() -> dict[int, bytes]:
        started = SweepHistory.load(sweep.folder.journal).started
        folders = {client.get_run(find_mlflow_run(client, started, number)).info.run_id: number for number in range(3)}
        return {
            folders[path.parents[1].name]: path.read_bytes()
            for path in out.glob("mlartifacts/*/*/artifacts/best.safetensors")
        }

    return read


def weights(sweep: Sweep, number: int) -> Path:
    path = sweep.folder.trial(number).create().best
    path.write_bytes(b"%d" % number)
    return path


def test_weights_follow_at_the_sweep_s_end(
    sweep: Sweep, new_sink: NewSink, stored: Stored, kept: Callable[[], dict[int, bytes]]
) -> None:
    sweep.start()
    for number in range(3):
        sweep.trial(number)
        sweep.epoch(number, 1)
        weights(sweep, number)
        sweep.end(number)
    new_sink().sync()
    assert kept() == {}
    sweep.folder.trial(1).best.unlink()
    sweep.stop()
    new_sink().sync()
    assert kept() == {}
    sweep.write(sweep.driver(resumed=True))
    sweep.finish()
    new_sink().sync()
    assert kept() == {0: b"0", 2: b"2"}
    assert stored.tags(f"{SWEEP_ID}/2")["weights"] == "1 bytes, sha256 d4735e3a265e16ee"
    assert "weights" not in stored.tags(f"{SWEEP_ID}/1")
    assert stored.points() == sweep.points


def test_on_one_disk_the_weights_are_there_once(sweep: Sweep, new_sink: NewSink, out: Path) -> None:
    path = weights(sweep, 2)
    sweep.whole()
    for _ in range(2):
        new_sink().sync()
        (copy,) = out.glob("mlartifacts/*/*/artifacts/best.safetensors")
        assert copy.samefile(path)
        (sweep.folder.figures).mkdir(exist_ok=True)
        (sweep.folder.figures / "report.html").write_text("drawn again, so that the end is told again")
    assert [one.name for one in copy.parent.iterdir() if one.name.startswith(".")] == []
    path.unlink()
    assert copy.read_bytes() == b"2"


def test_on_another_disk_they_are_copied(
    sweep: Sweep, new_sink: NewSink, kept: Callable[[], dict[int, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    weights(sweep, 0)
    sweep.whole()
    new_sink().sync()
    assert kept() == {0: b"0"}


def test_what_an_extension_outdoes_is_taken_back(
    sweep: Sweep, new_sink: NewSink, stored: Stored, kept: Callable[[], dict[int, bytes]]
) -> None:
    for number in (0, 1):
        weights(sweep, number)
    sweep.whole()
    new_sink().sync()
    assert kept() == {0: b"0", 1: b"1"}
    sweep.folder.trial(1).best.unlink()
    weights(sweep, 2)
    sweep.write(sweep.driver(resumed=True))
    new_sink().sync()  # the extension's driver dies here, and knows nothing when it comes back
    sweep.finish()
    new_sink().sync()
    assert kept() == {0: b"0", 2: b"2"}
    assert "weights" not in stored.tags(f"{SWEEP_ID}/1")


def test_an_extended_trial_s_net_replaces_the_old_one_of_the_same_size(
    sweep: Sweep, new_sink: NewSink, kept: Callable[[], dict[int, bytes]]
) -> None:
    path = weights(sweep, 2)
    sweep.whole()
    new_sink().sync()
    assert kept() == {2: b"2"}
    path.unlink()  # the trial replaces the file
    path.write_bytes(b"9")
    sweep.write(sweep.driver(resumed=True))
    sweep.finish()
    new_sink().sync()
    assert kept() == {2: b"9"}


def test_a_run_that_was_deleted_has_the_present_weights_once_it_is_restored(
    sweep: Sweep, new_sink: NewSink, out: Path, client: MlflowClient, stored: Stored,
    kept: Callable[[], dict[int, bytes]],
) -> None:  # fmt: skip
    """While its run is deleted, trial 1 loses its weights to the sweep's other trials, and trial 2 gets better ones."""
    paths = [weights(sweep, number) for number in range(3)]
    sweep.whole()
    new_sink().sync()
    started = SweepHistory.load(sweep.folder.journal).started
    deleted = [find_mlflow_run(client, started, number) for number in (1, 2)]
    for run_id in deleted:
        client.delete_run(run_id)
    for path in paths[1:]:
        path.unlink()
    paths[2].write_bytes(b"9")
    sweep.write(sweep.driver(resumed=True))
    sweep.finish()
    sink = MlflowSink(sweep.folder.journal, tracking_uri=default_uri(out), out=out, on_warning=lambda _: None)
    assert sink.sync() == 2, "deleted"
    for run_id in deleted:
        client.restore_run(run_id)
    new_sink().sync()
    assert kept() == {0: b"0", 2: b"9"}
    assert stored.tags(f"{SWEEP_ID}/2")["weights"] == "1 bytes, sha256 19581e27de7ced00"


def test_a_run_that_was_removed_for_good_is_made_again_with_its_weights(
    sweep: Sweep, new_sink: NewSink, out: Path, client: MlflowClient
) -> None:
    weights(sweep, 2)
    sweep.whole()
    new_sink().sync()
    (copy,) = out.glob("mlartifacts/*/*/artifacts/best.safetensors")
    copy.unlink()
    run_id = find_mlflow_run(client, SweepHistory.load(sweep.folder.journal).started, 2)
    client.delete_run(run_id)
    client._tracking_client.store._hard_delete_run(run_id)
    new_sink().sync()
    (again,) = out.glob("mlartifacts/*/*/artifacts/best.safetensors")
    assert again != copy
    assert again.read_bytes() == b"2"


def test_copies_that_gc_finds_and_removes(
    sweep: Sweep, new_sink: NewSink, stored: Stored, client: MlflowClient, kept: Callable[[], dict[int, bytes]]
) -> None:
    for number in range(3):
        weights(sweep, number)
    sweep.whole()
    new_sink().sync()
    history = SweepHistory.load(sweep.folder.journal)
    found = copies_of_weights(client, history, {0, 1})
    assert sorted((copy.name, copy.size_bytes) for copy in found) == [("0001 lenet", 1), ("LENET_1", 1)]
    remove_copies(client, found)
    assert kept() == {2: b"2"}
    assert copies_of_weights(client, history, {0, 1}) == []
    assert "weights" not in stored.tags(f"{SWEEP_ID}/1")
