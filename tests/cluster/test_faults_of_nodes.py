"""Preempted nodes, a control store that starts again, and storage that stands still or is full, under a sweep."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, hosts
from tests.cluster.journal_laws import attempts_begun, check_finished, check_so_far, epochs_done
from tests.cluster.processes import PATIENCE, wait_for
from tests.cluster.ray_on_hosts import RayOnHosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRIALS = 12


@contextlib.contextmanager
def running(folder: Path, workers: int = 2) -> Iterator[tuple[RayOnHosts, list[Host]]]:
    """Ray with a head and workers that have joined."""
    with hosts(1 + workers) as (head, *others), RayOnHosts(head, folder) as ray:
        ray.start_head()
        for host in others:
            ray.start_worker(host)
        ray.wait_for_workers(*others)
        yield ray, others


def wait_for_epochs(ray: RayOnHosts, more: int) -> None:
    """Until so many more epochs stand in the journal."""
    journal = ray.folder / "sweep/journal.jsonl"
    wanted = epochs_done(journal) + more
    wait_for(lambda: epochs_done(journal) >= wanted, PATIENCE, ray.said)


def test_a_node_that_is_told_to_go_hands_its_trial_to_another(tmp_path: Path) -> None:
    """As a preempted virtual machine or pod: SIGTERM to what started Ray there, and no more node soon after."""
    with running(tmp_path) as (ray, (spot, _)):
        driver = ray.start_sweep(trials=TRIALS, epochs=40)  # the first trial outlasts what Ray does after the signal
        wait_for_epochs(ray, 5)
        for process in spot.processes("ray.scripts.scripts"):
            process.send_signal(signal.SIGTERM)
        time.sleep(5)
        spot.power_off()
        assert driver.wait(PATIENCE) == 0, ray.said()
        check_finished(tmp_path / "sweep", TRIALS)
        reasons = attempts_begun(tmp_path / "sweep/journal.jsonl")
        assert reasons
        assert all("its worker died: The actor" in reason for reason in reasons)


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")
def test_with_redis_the_control_store_starts_again_under_the_sweep(tmp_path: Path) -> None:
    """Only the GCS dies, as after a fault of its own; nodes and driver live on and find the new one."""
    with hosts(2) as (head, worker), RayOnHosts(head, tmp_path) as ray:
        redis = f"redis-server --port 6400 --bind {head.address} --requirepass s3 --dir {tmp_path}".split()
        head.start(redis, ray.environment, tmp_path / "redis.log")
        program = [sys.executable, "-m", "tests.cluster.head_with_redis"]
        ray.start_as_head([*program, head.address, "6400", "s3", str(ray.temporary)])
        ray.start_worker(worker)
        ray.wait_for_workers(worker)
        driver = ray.start_sweep(trials=TRIALS)
        wait_for_epochs(ray, 5)
        (gcs,) = head.processes("gcs/gcs_server")
        gcs.kill()
        wait_for(lambda: [one for one in head.processes("gcs/gcs_server") if one.pid != gcs.pid], 60, ray.said)
        assert driver.wait(PATIENCE) == 0, ray.said()
        check_finished(tmp_path / "sweep", TRIALS)
        assert attempts_begun(tmp_path / "sweep/journal.jsonl") == []


@contextlib.contextmanager
def disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own, which can be filled and frozen."""
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mounted], check=False).returncode:
        pytest.skip("this machine does not let tests mount a disk")
    try:
        yield mounted
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", mounted], check=False, capture_output=True)
        subprocess.run(["umount", "-l", mounted], check=True)


def fill(path: Path) -> None:
    """Take every block of the disk at once."""
    with path.open("wb", buffering=0) as file:
        at, size = 0, shutil.disk_usage(path.parent).free
        while size >= 1024:
            try:
                os.posix_fallocate(file.fileno(), at, size)
                at += size
            except OSError:
                size //= 2


def test_storage_that_stands_still_for_a_minute_holds_the_sweep_up_and_no_more(tmp_path: Path) -> None:
    """As hard-mounted NFS whose server is away: whoever writes waits."""
    with disk(tmp_path, 1500) as storage, running(storage, 1) as (ray, _):
        driver = ray.start_sweep(trials=TRIALS)
        wait_for_epochs(ray, 5)
        subprocess.run(["fsfreeze", "--freeze", storage], check=True)
        time.sleep(60)
        subprocess.run(["fsfreeze", "--unfreeze", storage], check=True)
        assert driver.wait(PATIENCE) == 0, ray.said()
        check_finished(storage / "sweep", TRIALS)
        assert attempts_begun(storage / "sweep/journal.jsonl") == []


def test_storage_that_is_full_for_a_minute_ends_the_driver_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with disk(tmp_path, 1500) as storage, running(storage, 1) as (ray, _):
        driver = ray.start_sweep(trials=TRIALS)
        wait_for_epochs(ray, 5)
        filler = storage / "filler"
        fill(filler)
        code = driver.wait(PATIENCE)
        assert code != 0, ray.said()
        filler.unlink()
        assert "No space left on device" in (storage / "driver.log").read_text()
        check_so_far(storage / "sweep")
        assert ray.start_sweep(trials=TRIALS).wait(PATIENCE) == 0, ray.said()
        check_finished(storage / "sweep", TRIALS)
