"""A worker whose cable is pulled for a minute, and put back."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import hosts
from tests.cluster.journal_laws import attempts_begun, check_finished, epochs_done
from tests.cluster.processes import PATIENCE, wait_for
from tests.cluster.ray_on_hosts import RayOnHosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_minute_without_network_loses_no_epoch_and_computes_no_trial_twice(tmp_path: Path, workers: int) -> None:
    """The only worker, or one of two: its host takes Ray up again by itself, as systemd or a kubelet does."""
    with hosts(1 + workers) as (head, *others), RayOnHosts(head, tmp_path) as ray:
        ray.start_head()
        for host in others:
            ray.start_worker(host)
        ray.wait_for_workers(*others)
        driver = ray.start_sweep(trials=8 + 8 * workers)
        journal = tmp_path / "sweep/journal.jsonl"
        wait_for(lambda: epochs_done(journal) >= 5, PATIENCE, ray.said)
        before, begin = epochs_done(journal), time.monotonic()
        others[0].plug(False)
        time.sleep(60)
        during = epochs_done(journal)
        others[0].plug(True)
        assert driver.wait(PATIENCE) == 0, ray.said()
        check_finished(tmp_path / "sweep", 8 + 8 * workers)
        print(f"{workers} workers: {during - before} epochs in the minute without network, "
              f"{attempts_begun(journal)} attempts begun, over {time.monotonic() - begin:.0f} s after the cut",
              file=sys.stderr)  # fmt: skip
