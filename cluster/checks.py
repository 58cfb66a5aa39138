"""Evaluates the doctor's measurements: each result with its fix. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.probe import NodeFacts

Status = Literal["ok", "warn", "failed", "skipped"]

LEAST_SHARED_MEMORY_BYTES = 1 << 30
LEAST_FREE_BYTES = 1 << 30
MOST_SKEW_SECONDS = 1.0
"""Maximum clock skew: the journal has its own order, but MLflow's curves use clocks."""

FIXES = {
    "versions": "use one image on all nodes (cluster/Dockerfile), or install with --constraint constraints.txt",
    "gpus": "install a driver for torch's CUDA (580 or newer for CUDA 13) and a torch built for CUDA and this GPU, and "
    "start containers with --gpus all",
    "shared memory": "docker run --shm-size=8g, or in Kubernetes an emptyDir of medium Memory at /dev/shm",
    "clocks": "run chrony or systemd-timesyncd on every node",
    "storage": "mount the same NFS folder (EFS, Filestore) at the same path on every node, writable for Ray's user",
    "locks": "mount NFS with version 4, and without `nolock` or `local_lock=all`: two drivers would take one sweep",
    "MLflow": "start it (cluster/mlflow/compose.yaml), or give --tracking-uri; let the nodes through to its port",
    "ports": "let only the nodes reach each other on all ports (docs/security.md)",
    "token": "start every node with RAY_AUTH_MODE=token and the same token file of mode 600 (docs/security.md)",
}


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def _verdict(name: str, faults: Sequence[str], fine: str) -> Check:
    return Check(name, "failed", "; ".join(faults), FIXES[name]) if faults else Check(name, "ok", fine)


def versions(facts: Mapping[str, NodeFacts], reference: str) -> Check:
    """All nodes have the versions of `reference`, and it lacks nothing."""
    wanted = facts[reference].versions
    faults = [f"{reference}: {package} is not installed" for package, has in wanted.items() if has == "not installed"]
    faults += [
        f"{node}: {package} {has}, {reference} has {wanted[package]}"
        for node, fact in facts.items()
        for package, has in fact.versions.items()
        if has != wanted[package]
    ]
    shown = ", ".join(f"{package} {wanted[package]}" for package in ("python", "ray", "torch", "mlflow"))
    return _verdict("versions", faults, f"{_nodes(facts)}: {shown}")


def gpus(facts: Mapping[str, NodeFacts], claimed: Mapping[str, int]) -> Check:
    """Torch sees at least the GPUs that the node gives to trials, and each of those that it sees can compute."""
    faults = []
    for node, fact in facts.items():
        if fact.gpus_seen is None:
            faults.append(f"{node}: torch cannot be queried: {fact.torch_said}")
        elif fact.gpus_seen < claimed[node]:
            faults.append(f"{node}: {claimed[node]} GPUs, torch sees {fact.gpus_seen} ({fact.torch_said})")
        faults += [f"{node}: {fault}" for fault in fact.gpu_faults]
    if not faults and not sum(claimed.values()):
        return Check("gpus", "ok", f"{_nodes(facts)}, none with a GPU: trials run on cores")
    kinds = Counter(kind for fact in facts.values() for kind in fact.gpu_kinds)
    listed = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
    return _verdict("gpus", faults, f"{sum(claimed.values())} GPUs, each multiplied matrices: {listed}")


def shared_memory(facts: Mapping[str, NodeFacts]) -> Check:
    """/dev/shm, where Ray keeps its objects; a container's default of 64 MiB is too small."""
    faults = [
        f"{node}: /dev/shm has {fact.shared_memory_bytes / 2**20:.0f} MiB, 1024 needed"
        for node, fact in facts.items()
        if fact.shared_memory_bytes < LEAST_SHARED_MEMORY_BYTES
    ]
    least = min(fact.shared_memory_bytes for fact in facts.values())
    return _verdict("shared memory", faults, f"{least / 2**30:.1f} GiB at least")


def clocks(skews: Mapping[str, tuple[float, float]]) -> Check:
    """Each node's clock against the driver's: (skew, its uncertainty), in seconds."""
    if len(skews) < 2:
        return Check("clocks", "skipped", "one machine")
    faults = [
        f"{node}: {skew:+.1f} s from the driver's clock"
        for node, (skew, off) in skews.items()
        if abs(skew) - off > MOST_SKEW_SECONDS
    ]
    most = max(abs(skew) for skew, _ in skews.values())
    return _verdict("clocks", faults, f"at most {most:.3f} s apart")


def storage(folder: str, unwritten: Mapping[str, str], unread: Mapping[str, Sequence[str]], free_bytes: int) -> Check:
    """Every node wrote a file, and read those of all other nodes."""
    faults = [f"{node} cannot write: {reason}" for node, reason in unwritten.items() if reason]
    faults += [f"{node} cannot read the files of {', '.join(others)}" for node, others in unread.items() if others]
    if not faults and free_bytes < LEAST_FREE_BYTES:
        return Check("storage", "failed", f"{folder}: {free_bytes / 2**30:.2f} GiB free, 1 needed", "free some space")
    return _verdict("storage", faults, f"{folder}: written and read by {_nodes(unwritten)}, {_gib(free_bytes)} free")


def locks(folder: str, blind: Sequence[str], failed: str) -> Check:
    """A lock taken on one node is visible on all others; `blind` are the nodes where it is not."""
    faults = [failed] if failed else [f"{folder}: a lock held on one node can be taken again on {', '.join(blind)}"]
    return _verdict("locks", faults if failed or blind else [], "a lock on a sweep is visible on all nodes")


def tracking(uri: str, health: int, health_text: str, api: int) -> Check:
    """MLflow answers, and accepts the node's login. The arguments are HTTP statuses; 0 means no answer."""
    if health != 200:
        detail = health_text[:200] if health == 0 else f"answers {health}"
        return Check("MLflow", "failed", f"{uri}: {detail}", FIXES["MLflow"])
    if api in (401, 403):
        fix = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the head, or --allowed-hosts on MLflow"
        return Check("MLflow", "failed", f"{uri}: runs, but answers {api} with this login", fix)
    if api not in (200, 404):  # 404: the requested experiment was deleted
        return Check("MLflow", "failed", f"{uri}: its API answers {api}", FIXES["MLflow"])
    return Check("MLflow", "ok", f"{uri}: runs and accepts this login")


def ports(unreachable: Mapping[str, Sequence[str]], others: int) -> Check:
    """Every node reaches every other's raylet and object manager."""
    faults = [f"{node} cannot reach {', '.join(targets)}" for node, targets in unreachable.items() if targets]
    return _verdict("ports", faults, f"every node reaches the {others} ports of the others")


def own_ports(taken: Mapping[int, str]) -> Check:
    """The ports of a head that would be started on this machine. A sweep on this machine alone does not need them."""
    if not taken:
        return Check("ports", "ok", "6379, 8265 and 10001 are free for `ray start --head`")
    listed = ", ".join(f"{port} ({use})" for port, use in taken.items())
    fix = "only for `ray start --head` here: stop what listens there, or give other ports (--port, --dashboard-port)"
    return Check("ports", "warn", f"something listens on {listed}", fix)


def node_tokens(facts: Mapping[str, NodeFacts]) -> Check:
    """Every node runs with token authentication."""
    faults = [f"{node}: RAY_AUTH_MODE is {fact.auth_mode}" for node, fact in facts.items() if fact.auth_mode != "token"]
    return _verdict("token", faults, f"{_nodes(facts)} with RAY_AUTH_MODE=token")


def access(address: str, without: int, wrong: int) -> Check:
    """The Jobs API refuses requests without a token or with a wrong one; the arguments are HTTP statuses."""
    if (without, wrong) == (401, 403):
        return Check("access", "ok", f"{address} answers 401 without the token, 403 to a wrong one")
    if without == 200:
        return Check("access", "failed", f"{address} runs anyone's code: it requires no token", FIXES["token"])
    return Check("access", "warn", f"{address} answers {without} and {wrong}, expected 401 and 403")


def _nodes(names: Mapping[str, object]) -> str:
    return f"{len(names)} node" + ("s" if len(names) > 1 else "")


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def worst(checks: Sequence[Check]) -> str:
    """`9 ok, 1 failed`."""
    counts = Counter(check.status for check in checks)
    return ", ".join(f"{counts[status]} {status}" for status in ("ok", "warn", "failed", "skipped") if counts[status])
