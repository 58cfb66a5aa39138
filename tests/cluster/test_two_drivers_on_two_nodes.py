"""Two drivers on one Ray whose two slots are on two machines: they share them, and one driver is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.hosts import hosts
from tests.cluster.processes import PATIENCE, wait_for
from tests.cluster.quick_trials import diaries
from tests.cluster.ray_on_hosts import RayOnHosts
from tests.sweeps.sharing.test_two_drivers import BACK_SECONDS, SLOTS, changes
from tracking.record.events import Event, now_ms
from tracking.record.history import SweepHistory
from tracking.record.journal import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def events(sweep: Path) -> list[Event]:
    journal = sweep / "journal.jsonl"
    return list(read(journal)) if journal.exists() else []


def out(sweep: Path) -> int:
    """How many of its trials have a worker."""
    return sum(change for _, change in changes(events(sweep), []))


def test_two_sweeps_share_two_nodes_and_the_slots_of_a_killed_one_are_back_within_10_seconds(tmp_path: Path) -> None:
    with hosts(3) as (head, *workers), RayOnHosts(head, tmp_path) as ray:

        def drive(name: str) -> subprocess.Popen[bytes]:
            return ray.start_sweep(name=name, trials=2, epochs=120, baselines="none", pruner="none")

        ray.start_head()
        for host in workers:
            ray.start_worker(host)
        ray.wait_for_workers(*workers)
        first, second = tmp_path / "first", tmp_path / "second"
        drive("first")
        wait_for(lambda: out(first) == SLOTS, PATIENCE, ray.said, every=0.1)
        driver = drive("second")
        wait_for(lambda: (out(first), out(second)) == (1, 1), PATIENCE, ray.said, every=0.1)
        for process in head.processes('"name": "first"'):
            process.send_signal(signal.SIGKILL)
        killed = now_ms()
        wait_for(lambda: out(second) == SLOTS, BACK_SECONDS + 20, ray.said, every=0.1)
        raised = [when for when, change in changes(events(second), []) if change > 0 and when > killed]
        assert raised[0] - killed < 1000 * BACK_SECONDS
        assert drive("first").wait(PATIENCE) == 0, ray.said()
        assert driver.wait(PATIENCE) == 0, ray.said()
    used = 0
    for when, change in sorted([*changes(events(first), [killed]), *changes(events(second), [])]):
        used += change
        assert used <= SLOTS, f"{used} trials had a worker at {when}"
    for sweep in (first, second):
        assert {trial.state for trial in SweepHistory.load(sweep / "journal.jsonl").trials.values()} == {"done"}
        assert len({line["node"] for line in diaries(sweep)}) == 2, "its trials ran on both machines"
    print(f"slot back {(raised[0] - killed) / 1000:.1f} s after the kill", file=sys.stderr)
