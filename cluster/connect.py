"""Starts a private Ray on this machine, or joins a running cluster."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cluster.config import find_token
from cluster.errors import ClusterError
from cluster.gpus import GpuFacts, all_gpus
from cluster.probe import speaks_grpc

WORKER_ENVIRONMENT: Mapping[str, str] = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial with 0 GPUs sees none, rather than all
}
"""Environment of the trials' processes on every machine. Ray refuses a job that sets one of these variables itself."""

_PATIENCE_SECONDS = 120.0

_ENVIRONMENT = {
    **WORKER_ENVIRONMENT,
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the sweep stops itself, checkpointed
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own state is never read again
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

_TIMEOUT_SECONDS = 5.0


def prepare_environment(*, joining: bool = False) -> None:
    """Set the environment variables that Ray reads when it is imported; call this before the import.

    For a Ray of our own the token is made here. Otherwise Ray would write one to ~/.ray, which changes the user's later
    `ray start`. To join a cluster, the token must be the cluster's, from where Ray looks for it. If ray is already
    imported (in a notebook), its authentication stays as it is.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "ray" in sys.modules or "RAY_AUTH_MODE" in os.environ:
        return
    if joining:
        if find_token():
            os.environ["RAY_AUTH_MODE"] = "token"
    else:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def ray_runs_here() -> bool:
    """Whether this process has already initialised Ray, for example in a notebook."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def local_ray(cpus: int, gpus: int, resources: Iterable[str] = ()) -> Iterator[None]:
    """Run a Ray of our own on this machine while the block runs, with one of each of the named resources.

    A Ray that the caller has already initialised (a notebook, a driver on a cluster) is used as it is and not ended.
    `address="local"` is necessary because Ray would otherwise join any cluster that its temporary folder names.

    Raises:
        ClusterError: Ray does not start.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        with _signal_handlers_kept():
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                resources=dict.fromkeys(resources, 1.0),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # of many kinds: the folder, ports, memory, a process of Ray's that ends
        raise ClusterError(f"Ray does not start on this machine: {_first_line(error)}; {_way_out()}") from error
    try:
        yield
    finally:
        _leave_ray()


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Join the cluster at `auto` (that of this machine, or of this job) or `HOST:6379` while the block runs.

    Raises:
        ClusterError: nothing answers there, or it refuses the token.
    """
    import ray
    from ray._private.services import canonicalize_bootstrap_address_or_die
    from ray.exceptions import AuthenticationError, RayError

    if ray.is_initialized():
        yield
        return
    try:
        head = canonicalize_bootstrap_address_or_die(address)
        host, _, port = head.rpartition(":")
        if not speaks_grpc(host.strip("[]"), int(port), _TIMEOUT_SECONDS):
            raise ConnectionError(f"no Ray answers at {head}")  # ray.init would wait for it for minutes
        with _signal_handlers_kept():
            ray.init(
                address=head,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": dict(WORKER_ENVIRONMENT)},
            )
    except AuthenticationError:
        raise ClusterError(
            f"Ray at {address}: it does not take this token; set RAY_AUTH_TOKEN_PATH to the file of the cluster's"
        ) from None
    except (OSError, RayError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"Ray at {address}: {_first_line(error)}; `auto` works on a node of the cluster or in a job; "
            "from elsewhere submit: --address http://HEAD:8265 --out DIR"
        ) from None
    try:
        yield
    finally:
        _leave_ray()


def _leave_ray() -> None:
    """Shut Ray down with the garbage collector off.

    Tune leaves reference cycles that contain object references. If any thread collects one of them while Ray's core
    worker shuts down, Ray ends the process with exit code 1.
    """
    import ray

    was_on = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if was_on:
            gc.enable()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _way_out() -> str:
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    folder = f"{name}={os.environ[name]} is where it keeps its sockets, try a short path that exists; " if name else ""
    return f"{folder}without Ray: --runner inline"


@dataclass(frozen=True)
class ClusterSize:
    """Cores and GPUs of each node that has any. Those of nodes that are not started yet count as one node."""

    node_cpus: tuple[int, ...]
    node_gpus: tuple[int, ...]


def cluster_size(cpus_all_up: int | None = None, gpus_all_up: int | None = None) -> ClusterSize:
    """The size of the joined cluster; at least the cores and GPUs in `all_up`, for workers that are not started yet.

    Raises:
        ClusterError: there is no core, and none is declared.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    node_cpus = [int(resources["CPU"]) for resources in nodes if resources.get("CPU", 0) >= 1]
    to_come = (cpus_all_up or 0) - sum(node_cpus)
    if to_come > 0:
        node_cpus.append(to_come)
    if not node_cpus:
        raise ClusterError(
            "the cluster has no core for trials yet; where the autoscaler starts workers when trials wait, say what "
            "there will be: metadata.fer_sweeps.cpus and .gpus in its file, and --cluster FILE"
        )
    node_gpus = [int(resources["GPU"]) for resources in nodes if resources.get("GPU", 0) >= 1]
    gpus_to_come = (gpus_all_up or 0) - sum(node_gpus)
    if gpus_to_come > 0:
        node_gpus.append(gpus_to_come)
    return ClusterSize(tuple(node_cpus), tuple(node_gpus))


def one_node_of_each_kind() -> list[str]:
    """The ids of nodes with GPUs in the joined cluster, one for each kind of GPU."""
    import ray

    by_kind: dict[str, str] = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get("GPU", 0) > 0:
            kind = next((name for name in node["Resources"] if name.startswith("accelerator_type:")), "")
            by_kind.setdefault(kind, node["NodeID"])
    return list(by_kind.values())


def cluster_gpus() -> GpuFacts:
    """The GPUs of one node of each kind in the joined cluster. Empty if no node is up or none can report."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(all_gpus)
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in one_node_of_each_kind()]
    asked = [ask.options(scheduling_strategy=place).remote() for place in places]
    try:
        facts = [fact for fact in ray.get(asked, timeout=_PATIENCE_SECONDS) if fact.gpus]
    except (RayError, TimeoutError):
        return GpuFacts()
    return GpuFacts(
        tuple(gpu for fact in facts for gpu in fact.gpus),
        next((fact.driver for fact in facts), None),
        next((fact.fault for fact in facts if fact.fault), None),
    )


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Restore the SIGTERM handler, which ray.init replaces by one that aborts.

    Processes that ray.init starts ignore SIGHUP, so they outlive a closed terminal until this process has stopped them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
