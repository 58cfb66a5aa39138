"""How many trials run at once, by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import InputError
from sweeps.planning.resources import Slots, choose_device, plan_slots
from tests import ROOT


def test_as_many_as_cores() -> None:
    assert plan_slots("cpu", node_cpus=(8,)) == Slots(
        node_cpus=(8,), gpus=0, cpus_per_trial=1.0, gpus_per_trial=0.0, count=8, room=8
    )
    assert plan_slots("cpu", node_cpus=(8,), cpus_per_trial=3).count == 2
    assert plan_slots("cpu", node_cpus=(8,), cpus_per_trial=3).threads == 3
    assert plan_slots("cpu", node_cpus=(8,), max_concurrent=5).count == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file over the kernel's needs root")
@pytest.mark.parametrize(("names", "texts"), [
    (("cpu.max",), ("100000 100000",)),
    (("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"), ("50000", "100000")),
])  # fmt: skip
def test_no_more_cores_than_the_container_may_use(
    tmp_path: Path, names: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    """As in `docker run --cpus=1`: control groups of version 2 and 1, mounted over this machine's for one process."""
    for name, text in zip(names, texts, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    count = f"{sys.executable} -c 'from sweeps.planning.resources import usable_cpus; print(usable_cpus())'"
    command = ["unshare", "--mount", "sh", "-c", f"mount --bind {tmp_path} /sys/fs/cgroup && {count}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("this machine does not let tests mount")
    assert done.stdout == "1\n", done.stderr


def test_as_many_as_shares_of_gpus() -> None:
    shared = plan_slots("cuda", node_cpus=(16,), node_gpus=(2,), gpus_per_trial=0.25)
    assert (shared.count, shared.cpus_per_trial) == (8, 2)
    assert plan_slots("cuda", node_cpus=(16,), node_gpus=(2,), gpus_per_trial=0.4).count == 4, (
        "a fifth of each is left over"
    )
    assert plan_slots("cuda", node_cpus=(16,), node_gpus=(4,), gpus_per_trial=2).count == 2
    with pytest.raises(InputError, match="above 1 it must be a whole number"):
        plan_slots("cuda", node_cpus=(16,), node_gpus=(4,), gpus_per_trial=1.5)
    assert plan_slots("cuda", node_cpus=(16,), node_gpus=(2,)).count == 2, "a whole GPU each, if nothing was measured"
    assert plan_slots("cuda", node_cpus=(3,), node_gpus=(2,), gpus_per_trial=0.25).count == 3, (
        "and no more than there are cores"
    )


def test_no_trial_lies_across_two_nodes() -> None:
    assert plan_slots("cpu", node_cpus=(4, 4, 2), cpus_per_trial=3).count == 2
    assert plan_slots("cpu", node_cpus=(4, 4, 2), cpus_per_trial=2).count == 5
    assert plan_slots("cuda", node_cpus=(4, 4), node_gpus=(1,)).cpus_per_trial == 4, (
        "the node beside the GPU's helps no trial"
    )
    on_two = plan_slots("cuda", node_cpus=(16, 16), node_gpus=(3, 2), gpus_per_trial=2)
    assert (on_two.count, on_two.gpus, on_two.workers) == (2, 5, 2), "the third GPU of the first node is of no use"
    assert on_two.of_a_trial == "16 cores, 2 GPUs, 2 workers per trial"
    with pytest.raises(InputError, match="--gpus-per-trial 4: the largest node has 3 GPUs; give at most 3"):
        plan_slots("cuda", node_cpus=(16, 16), node_gpus=(3, 2), gpus_per_trial=4)
    with pytest.raises(InputError, match="--cpus-per-trial 5: the largest node has 4 cores; give at most 4"):
        plan_slots("cpu", node_cpus=(4, 4, 2), cpus_per_trial=5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpus_per_trial": 9}, "--cpus-per-trial 9: this machine has 8 cores"),
        ({"cpus_per_trial": 0}, "--cpus-per-trial 0: a trial needs a share of a core"),
        ({"cpus_per_trial": -1}, "--cpus-per-trial -1: must be 0 or more"),
        ({"cpus_per_trial": float("nan")}, "must be 0 or more"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan_slots("cpu", node_cpus=(8,), **options)  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert choose_device("auto", 0) == "cpu"
    assert choose_device("auto", 1) == "cuda"
    assert choose_device("cpu", 1) == "cpu"
    with pytest.raises(InputError, match="no NVIDIA GPU"):
        choose_device("cuda", 0)


def test_workers_of_a_trial() -> None:
    assert plan_slots("cpu", node_cpus=(8,)).workers == 1
    together = plan_slots("cpu", node_cpus=(8,), workers_per_trial=2)
    assert (together.workers, together.count, together.cpus_per_trial) == (2, 4, 2), "a core each"
    assert plan_slots("cpu", node_cpus=(8,), workers_per_trial=2, cpus_per_trial=4).count == 2
    assert plan_slots("cuda", node_cpus=(8,), node_gpus=(2,), gpus_per_trial=0.5, workers_per_trial=1).workers == 1


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cpu", {"workers_per_trial": 9}, "--workers-per-trial 9: this machine has 8 cores; give at most 8"),
        ("cpu", {"workers_per_trial": 3, "cpus_per_trial": 2}, "each needs a core, and --cpus-per-trial is 2"),
        ("cuda", {"workers_per_trial": 2}, "one worker per GPU, 1 here; omit it, or use --gpus-per-trial 2"),
        ("cuda", {"workers_per_trial": 4, "gpus_per_trial": 2}, "one worker per GPU, 2 here"),
        ("cuda", {"gpus_per_trial": 3}, "--gpus-per-trial 3: this machine has 2 GPUs; give at most 2"),
    ],
)
def test_workers_that_cannot_be(device: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_slots(device, node_cpus=(8,), node_gpus=(2,), **options)  # type: ignore[arg-type]
