"""cluster/slurm/sweep.sbatch on a real Slurm of two nodes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.cluster.hosts import Host, hosts
from tests.cluster.journal_laws import check_finished, epochs_done
from tests.cluster.processes import PATIENCE, environment, wait_for
from tracking.record.events import DriverStarted
from tracking.record.journal import read

BIN = Path(sys.executable).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))) or not (BIN / "ray").exists(),
        reason="needs slurm-wlm and munge, and Ray in the environment's own bin",
    ),
]

CONF = """
ClusterName=fer
SlurmctldHost={0.name}({0.address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=30
NodeName={1.name} NodeAddr={1.address} CPUs=2 State=UNKNOWN
NodeName={2.name} NodeAddr={2.address} CPUs=2 State=UNKNOWN
PartitionName=all Nodes={1.name},{2.name} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A controller on the first host, slurmd on the two others; munge is theirs all, as a socket is no network."""

    def __init__(self, folder: Path, controller: Host, nodes: list[Host]) -> None:
        self.folder, self.controller = folder, controller
        self.environment = environment(folder) | {
            "SLURM_CONF": f"{folder}/slurm.conf",
            "FER_VENV": str(BIN.parent),
            "FER_OUT": str(folder),
        }
        (folder / "slurm.conf").write_text(CONF.format(controller, *nodes, folder=folder))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # which is used for nothing here
        for name in ("state", *(node.name for node in nodes)):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        own = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self._start(controller, "munged", "--foreground", "--force", f"--key-file={key}", *own)
        wait_for((folder / "munge.socket").exists, 30, self.said)
        self._start(controller, "slurmctld", "-D")
        for node in nodes:
            self._start(node, "slurmd", "-D", "-N", node.name)
        wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%T %D") == "idle 2", 60, self.said)

    def _start(self, host: Host, *words: str) -> None:
        host.start(words, self.environment, self.folder / f"{host.name}.log")

    def ask(self, *words: str) -> str:
        """What a command of Slurm's answers on the controller."""
        answer = self.folder / "answer"
        answer.unlink(missing_ok=True)
        self.controller.start(words, self.environment, answer).wait()
        return answer.read_text().strip()

    def said(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.[lo]*[gt]"))
        )


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    with hosts(3) as (controller, *nodes):
        yield Slurm(tmp_path, controller, nodes)


def test_out_of_time_and_preempted_a_sweep_goes_back_into_the_queue_and_on(slurm: Slurm) -> None:
    """Both by hand: the signal that Slurm gives before the time is up, and `scontrol requeue` for a preemption."""
    tiny = [
        "--trials",
        "8",
        "--epochs",
        "3",
        "--limit-train",
        "350",
        "--set",
        "batch_size=50",
        "--set",
        "precision=fp32",
    ]
    job = slurm.ask("sbatch", "--parsable", "--nodes=2", f"--output={slurm.folder}/job.log",
                    str(ROOT / "cluster/slurm/sweep.sbatch"), "lenet_space", *tiny)  # fmt: skip
    sweep = slurm.folder / f"lenet_space-slurm-{job}"
    for interruption in (["scancel", "--batch", "--signal=USR1", job], ["scontrol", "requeue", job]):
        wanted = epochs_done(sweep / "journal.jsonl") + 3
        wait_for(lambda: epochs_done(sweep / "journal.jsonl") >= wanted, PATIENCE, slurm.said)  # noqa: B023
        slurm.ask(*interruption)
    wait_for(lambda: "JobState=COMPLETED" in slurm.ask("scontrol", "show", "job", job), PATIENCE, slurm.said)
    said = (slurm.folder / "job.log").read_text()
    assert re.findall(r"^job \d+, start (\d): sweep (\S+) on host2 host3;", said, flags=re.MULTILINE) == [
        (str(start), sweep.name) for start in range(3)
    ]
    assert "2 at once on cpu" in said
    assert "out of time: back into the queue" in said
    check_finished(sweep, 8, space="lenet_space")
    drivers = [event for event in read(sweep / "journal.jsonl") if isinstance(event, DriverStarted)]
    assert [driver.resumed for driver in drivers] == [False, True, True]
    assert {driver.host for driver in drivers} == {"host2"}
    assert not list((slurm.folder / ".fer-sweeps").iterdir()), "the token is gone with the job"
