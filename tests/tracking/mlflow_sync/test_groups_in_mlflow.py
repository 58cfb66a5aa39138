"""A group of trials in MLflow: one run with the mean, the members' runs below it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.tracking.small_sweep import SWEEP_ID, Stored, Sweep
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.sink import MlflowSink
from tracking.mlflow_sync.upkeep import close_runs, dead_runs, find_trial, opened
from tracking.record.events import AttemptStarted, Group, TrialPaused
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

NewSink = Callable[[], MlflowSink]
GROUP = f"{SWEEP_ID}/group 0"


def run_id(stored: Stored, key: str) -> str:
    ((found,),) = stored.query(f"SELECT run_uuid FROM tags WHERE key = 'trial.key' AND value = '{key}'")
    return str(found)


def parents(stored: Stored) -> dict[str, str]:
    """The key of each run's parent, by its key."""
    rows = stored.query(
        "SELECT k.value, p.value FROM tags k JOIN tags m ON m.run_uuid = k.run_uuid AND m.key = 'mlflow.parentRunId' "
        "JOIN tags p ON p.run_uuid = m.value AND p.key = 'trial.key' WHERE k.key = 'trial.key'"
    )
    return {str(child): str(parent) for child, parent in rows}


def test_a_group_is_one_run_below_the_sweep_with_its_members_below_it(
    sweep: Sweep, new_sink: NewSink, stored: Stored, out: Path
) -> None:
    sweep.grouped()
    for _ in range(2):
        new_sink().sync()
    assert stored.points() == pytest.approx(sweep.points)
    second = f"{SWEEP_ID}/group 2"
    assert parents(stored) == {
        GROUP: SWEEP_ID, second: SWEEP_ID,
        f"{SWEEP_ID}/0": GROUP, f"{SWEEP_ID}/1": GROUP, f"{SWEEP_ID}/2": second,
    }  # fmt: skip
    runs = stored.runs()
    assert {runs[GROUP][0], runs[second][0]} == {"FINISHED"}
    assert runs[GROUP][3] == "0000 lenet, 2 seeds"
    assert runs[GROUP][1:3] == (runs[f"{SWEEP_ID}/0"][1], runs[f"{SWEEP_ID}/1"][2]), "from the first to the last"
    tags = stored.tags(second)
    assert (tags["state"], tags["reason"]) == ("pruned", "trial 2 is pruned: 0.31 under the cut 0.38")
    assert (tags["group"], tags["members"], tags.get("trial"), tags.get("seed")) == ("2", "2", None, None)
    params = f"SELECT key, value FROM params WHERE run_uuid = '{run_id(stored, GROUP)}'"
    assert ("recipe.lr", "0.01") in stored.query(params)
    assert find_trial(run_id(stored, GROUP), default_uri(out)) == ("night", SWEEP_ID, 0)


def test_a_group_runs_waits_and_goes_on_with_its_members(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    def status() -> tuple[object, str]:
        new_sink().sync()
        return stored.runs()[GROUP][0], stored.tags(GROUP)["state"]

    sweep.start()
    sweep.trial(0, group=Group(first=0, member=0, size=2))
    sweep.epoch(0, 1)
    assert status() == ("RUNNING", "running")
    sweep.write(TrialPaused(time_ms=sweep.tick(), trial=0, epoch=1, reason="rung"))
    assert status() == ("SCHEDULED", "waiting")
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="promoted"))
    sweep.epoch(0, 2)
    assert status() == ("RUNNING", "running")
    sweep.end(0)
    sweep.group_mean(0, [0.3])
    assert status() == ("RUNNING", "running"), "the second member is to come"
    sweep.stop()
    assert status() == ("KILLED", "stopped")
    sweep.write(sweep.driver(resumed=True))
    sweep.trial(1, group=Group(first=0, member=1, size=2))
    assert status() == ("RUNNING", "running")
    sweep.write(sweep.driver(resumed=True))
    assert status() == ("KILLED", "stopped"), "its driver died"
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=1, attempt=1, reason="resumed"))
    sweep.epoch(1, 1)
    sweep.end(1, "failed", reason="diverged")
    sweep.finish()
    assert status() == ("FAILED", "failed")
    assert stored.points() == pytest.approx(sweep.points)


def test_a_group_that_lost_is_over_with_the_sweep(sweep: Sweep, new_sink: NewSink, stored: Stored) -> None:
    sweep.start()
    sweep.member(0, 0, size=3)
    sweep.member(1, 0, size=3)
    sweep.finish()
    new_sink().sync()
    tags = stored.tags(GROUP)
    assert (tags["state"], tags["reason"]) == ("pruned", "2 of 3 members done; it could no longer win")
    assert stored.runs()[GROUP][0] == "FINISHED"


@pytest.mark.parametrize("again", [Sweep.finish, Sweep.stop])
def test_a_group_that_was_given_up_stays_so_when_the_sweep_is_resumed(
    sweep: Sweep, new_sink: NewSink, stored: Stored, again: Callable[[Sweep], None]
) -> None:
    sweep.start()
    sweep.member(0, 0, size=3)
    sweep.finish()
    new_sink().sync()
    before = stored.runs()[GROUP], stored.tags(GROUP)
    assert (before[0][2], before[1]["state"]) == (sweep.time_ms, "pruned")
    sweep.write(sweep.driver(resumed=True))
    again(sweep)
    for _ in range(2):
        new_sink().sync()
        assert (stored.runs()[GROUP], stored.tags(GROUP)) == before


def as_earlier_versions_did(stored: Stored, out: Path) -> None:
    """Members below the run of the first, and no run of the group."""
    client = MlflowClient(default_uri(out))
    store = client._tracking_client.store
    first, group = run_id(stored, f"{SWEEP_ID}/0"), run_id(stored, GROUP)
    for key, parent in ((f"{SWEEP_ID}/0", run_id(stored, SWEEP_ID)), (f"{SWEEP_ID}/1", first)):
        client.set_tag(run_id(stored, key), "mlflow.parentRunId", parent)
    client.delete_run(group)
    store._hard_delete_run(group)


@pytest.mark.parametrize("over", [False, True])
def test_the_runs_of_an_earlier_version_get_their_group(
    sweep: Sweep, new_sink: NewSink, stored: Stored, out: Path, over: bool
) -> None:
    sweep.start()
    sweep.member(0, 0)
    sweep.member(1, 0)
    if over:
        sweep.finish()
    else:
        sweep.stop()
    new_sink().sync()
    before = stored.runs()
    as_earlier_versions_did(stored, out)
    assert parents(stored)[f"{SWEEP_ID}/1"] == f"{SWEEP_ID}/0"
    if not over:
        sweep.write(sweep.driver(resumed=True))
        sweep.finish()
    for _ in range(2):
        new_sink().sync()
        assert parents(stored) == {GROUP: SWEEP_ID, f"{SWEEP_ID}/0": GROUP, f"{SWEEP_ID}/1": GROUP}
        assert stored.runs().keys() == before.keys()
        assert {run[0] for run in stored.runs().values()} == {"FINISHED"}


def test_a_dead_sweep_s_group_is_closed_with_its_members(
    sweep: Sweep, new_sink: NewSink, stored: Stored, out: Path
) -> None:
    sweep.start()
    sweep.trial(0, group=Group(first=0, member=0, size=2))
    sweep.epoch(0, 1)
    new_sink().sync()
    last = sweep.time_ms
    with opened(default_uri(out)) as client:
        dead = dead_runs(client, SweepHistory.load(sweep.folder.journal))
        assert len(dead) == 3
        close_runs(client, dead)
    new_sink().sync()
    assert {run[0] for run in stored.runs().values()} == {"KILLED"}
    assert stored.runs()[GROUP][2] == last
