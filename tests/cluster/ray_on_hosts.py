"""Ray on hosts of their own, and a sweep beside its head."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tests.cluster.hosts import Host
from tests.cluster.processes import PATIENCE, RAY, environment, wait_for

_LITTLE = ["--object-store-memory=80000000", "--disable-usage-stats", "--include-log-monitor=false"]
_NODES = """
import sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info().values()
print(sum(node.state == node.ALIVE for node in nodes))
"""


def _starts(log: Path) -> int:
    """How often a node has come up: `ray start --block` says so when its raylet is registered."""
    return log.read_text().count("This command will now block") if log.exists() else 0


class RayOnHosts:
    """A head on the first host, which runs no trial, and workers on others. `folder` is the NFS of them all.

    As a context it removes what Ray leaves in its temporary folder.
    """

    def __init__(self, head: Host, folder: Path) -> None:
        self.head, self.folder = head, folder
        self.temporary = Path(f"/tmp/fer-{os.getpid()}-{folder.name[-20:]}")  # sockets need a short path
        self.environment = environment(folder)
        self.address = f"{head.address}:6379"

    def start_head(self, *more: str, **variables: str) -> None:
        """Start the head, and wait until its node is there."""
        self.start_as_head([*RAY, "start", "--head", "--block", f"--node-ip-address={self.head.address}", "--port=6379",
                            "--num-cpus=0", "--num-gpus=0", "--include-dashboard=false", f"--temp-dir={self.temporary}",
                            *_LITTLE, *more], **variables)  # fmt: skip

    def start_as_head(self, words: list[str], **variables: str) -> None:
        """Start a program that is the head, again where a busy machine lets Ray's 15 s for an agent pass."""
        log, end = self.folder / "head.log", time.monotonic() + PATIENCE
        before = _starts(log)
        while time.monotonic() < end:
            started = self.head.start(words, self.environment | variables, log)
            while started.poll() is None:
                if _starts(log) > before:
                    return
                time.sleep(0.5)
        raise AssertionError(self.said())

    def start_worker(self, host: Host) -> None:
        """Start a worker with one core; it joins in its own time, and starts again whenever it ends."""
        words = [*RAY, "start", "--block", f"--address={self.address}", f"--node-ip-address={host.address}",
                 "--num-cpus=1", *_LITTLE]  # fmt: skip
        again = ["bash", "-c", f"while :; do {shlex.join(words)}; sleep 1; done"]
        host.start(again, self.environment, self.folder / f"{host.address}.log")

    def wait_for_workers(self, *workers: Host) -> None:
        """Until each of them has joined once."""
        wait_for(lambda: all(_starts(self.folder / f"{host.address}.log") for host in workers), PATIENCE, self.said)

    def start_sweep(self, **options: Any) -> subprocess.Popen[bytes]:
        """A driver of `quick_trials`, as a job on the head would be; it resumes what is there of that name."""
        asked = {"name": "sweep", "out": str(self.folder), "tracking_uri": f"sqlite:///{self.folder}/mlflow.db",
                 "address": self.address, "resume": True, **options}  # fmt: skip
        words = [sys.executable, "-m", "tests.cluster.quick_trials", json.dumps(asked)]
        return self.head.start(words, self.environment, self.folder / "driver.log")

    def nodes(self) -> int:
        """How many nodes live; none while the head does not answer."""
        log = self.folder / "nodes.log"
        log.unlink(missing_ok=True)
        if self.head.start([sys.executable, "-c", _NODES, self.address], self.environment, log).wait():
            return 0
        return int(log.read_text().splitlines()[-1])

    def said(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)
