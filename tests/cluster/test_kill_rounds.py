"""Everything that a cluster is made of, killed while a sweep runs; its records are held against the laws each time."""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, hosts
from tests.cluster.journal_laws import attempts_begun, check_finished, check_so_far, epochs_done
from tests.cluster.processes import PATIENCE, wait_for
from tests.cluster.ray_on_hosts import RayOnHosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRIALS = 24
KINDS = ("node", "raylet", "gcs", "driver")


class Rounds:
    """A head and two workers, a sweep, and a hand that kills."""

    def __init__(self, ray: RayOnHosts, workers: list[Host], seed: int) -> None:
        self.ray, self.workers, self.moments = ray, workers, random.Random(seed)
        self.sweep = ray.folder / "sweep"
        self.boot()

    def boot(self) -> None:
        """Start Ray everywhere, and the sweep, or continue with it."""
        self.ray.start_head()
        for worker in self.workers:
            self.ray.start_worker(worker)
        self.drive()

    def drive(self) -> None:
        """Give the command that starts the sweep, and resumes it."""
        self.driver = self.ray.start_sweep(trials=TRIALS, cluster_cpus=len(self.workers))

    def kill(self, kind: str) -> None:
        """Kill it, and bring back what a supervisor would."""
        worker = self.moments.choice(self.workers)
        if kind == "node":
            worker.plug(False)  # no farewell on any connection
            worker.power_off()
            worker.plug(True)
            worker.boot()
            self.ray.start_worker(worker)
        elif kind == "raylet":
            for process in worker.processes("raylet/raylet"):
                process.send_signal(signal.SIGKILL)
        elif kind == "driver":
            for process in self.ray.head.processes("tests.cluster.quick_trials"):
                process.send_signal(signal.SIGKILL)
            self.driver.wait()
            self.drive()
        elif kind == "gcs":
            for process in self.ray.head.processes("gcs_server"):
                process.send_signal(signal.SIGKILL)
            self.leave_the_ruins()
            self.boot()

    def leave_the_ruins(self) -> None:
        """The driver ends by itself when its cluster has died; then every host is started anew."""
        begin = time.monotonic()
        code = self.driver.wait(PATIENCE)
        print(f"  the driver left {time.monotonic() - begin:.0f} s after the GCS with {code}", file=sys.stderr)
        assert code != 0 or self.finished()
        for host in (self.ray.head, *self.workers):
            host.power_off()
            host.boot()

    def finished(self) -> bool:
        journal = self.sweep / "journal.jsonl"
        return journal.exists() and '"event":"finished"' in journal.read_text()


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_a_sweep_outlives_the_death_of_every_part_of_its_cluster(tmp_path: Path, seed: int) -> None:
    with hosts(3) as (head, *workers), RayOnHosts(head, tmp_path) as ray:
        rounds = Rounds(ray, workers, seed)
        kinds = rounds.moments.sample(KINDS, len(KINDS))
        for number, kind in enumerate(kinds, start=1):
            journal = rounds.sweep / "journal.jsonl"
            wanted = epochs_done(journal) + rounds.moments.randint(3, 12)
            wait_for(lambda: epochs_done(journal) >= wanted or rounds.finished(), PATIENCE, ray.said)  # noqa: B023
            time.sleep(rounds.moments.uniform(0, 1.5))
            print(f"seed {seed} round {number}: {kind} at epoch {epochs_done(journal)}", file=sys.stderr)
            rounds.kill(kind)
            check_so_far(rounds.sweep)
        assert rounds.driver.wait(PATIENCE) == 0, ray.said()
        check_finished(rounds.sweep, TRIALS)
        print(f"  whole; handed out again: {attempts_begun(journal)}", file=sys.stderr)
