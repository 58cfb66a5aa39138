"""Checks a cluster, or this machine, before a sweep uses it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster import checks, probe
from cluster.checks import Check
from cluster.config import ClusterConfig, find_token
from cluster.connect import joined_ray, prepare_environment
from cluster.errors import ClusterError
from cluster.gpus import own_gpus
from cluster.probe import NodeFacts, Probe
from cluster.submit import Jobs
from fer_common import versions
from fer_common.errors import without_password

_PATIENCE_SECONDS = 60.0
"""NFS shows another client's new file after its attribute cache expires: after 30 to 60 s by default."""
_TIMEOUT_SECONDS = 5.0
_HEAD_PORTS = {6379: "Ray's head, or Redis", 8265: "Ray's dashboard", 10001: "Ray Client"}
_HEAD_RESOURCE = "node:__internal_head__"
_REPORT = '{"place"'


@dataclass(frozen=True)
class DoctorReport:
    """The doctor's checks, and the machine or cluster that it examined."""

    place: str
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "failed" for check in self.checks)

    def as_json(self) -> str:
        """The report as one line, which `from_log` can find."""
        return json.dumps({"place": self.place, "ok": self.healthy, "checks": [asdict(c) for c in self.checks]})

    @classmethod
    def from_log(cls, log: str) -> DoctorReport:
        """The report in the output of a job. Raises ClusterError if there is none."""
        lines = [line for line in log.splitlines() if line.startswith(_REPORT)]
        if not lines:
            raise ClusterError(f"doctor did not finish on the cluster:\n{log[-2000:].strip()}")
        said = json.loads(lines[-1])
        return cls(said["place"], tuple(Check(**check) for check in said["checks"]))


def examine(config: ClusterConfig | None, storage: Path, tracking_uri: str | None) -> DoctorReport:
    """Examine this machine (no config), the cluster that it is part of (`auto`, `HOST:6379`), or one at `http://`.

    Raises:
        ClusterError: there is no such cluster, or it refuses the token.
    """
    if config is None:
        return examine_machine(storage, tracking_uri)
    if config.submits:
        return examine_from_afar(config, tracking_uri)
    return examine_cluster(config.address, Path(config.storage) if config.storage else storage, tracking_uri)


def examine_machine(storage: Path, tracking_uri: str | None) -> DoctorReport:
    """Check without Ray what a sweep on this machine alone needs."""
    here = Probe()
    facts = {"this machine": NodeFacts(**here.facts(own_devices=True))}
    taken = {port: use for port, use in _HEAD_PORTS.items() if probe.accepts("127.0.0.1", port, 0.5)}
    found = (
        checks.versions(facts, "this machine"),
        checks.gpus(facts, {"this machine": len(own_gpus().gpus)}),
        checks.shared_memory(facts),
        *_own_storage(here, storage),
        tracking_check(tracking_uri, here.tracking),
        checks.clocks({}),
        checks.own_ports(taken),
        _own_token(),
    )
    return DoctorReport("this machine", found)


def examine_cluster(address: str, storage: Path, tracking_uri: str | None) -> DoctorReport:
    """Examine the cluster from a driver in it: one probe on every node."""
    prepare_environment(joining=True)
    with joined_ray(address):
        from ray.exceptions import RayError

        try:
            return _examine_nodes(address, str(storage), tracking_uri)
        except RayError as error:
            said = str(error).strip().partition("\n")[0]
            raise ClusterError(f"a node of {address} was lost while it was looked at: {said}; ask again") from None


def _examine_nodes(address: str, storage: str, tracking_uri: str | None) -> DoctorReport:
    import ray

    nodes = {_node_name(node): node for node in _all_nodes() if node["Alive"]}
    probes = _place_probes(nodes)
    facts = {name: NodeFacts(**fact) for name, fact in _of_all(probes, "facts", False).items()}
    head = next((name for name, node in nodes.items() if _HEAD_RESOURCE in node["Resources"]), next(iter(nodes)))
    found = (
        checks.versions(facts, head),
        checks.gpus(facts, {name: int(node["Resources"].get("GPU", 0)) for name, node in nodes.items()}),
        checks.shared_memory(facts),
        *_shared_storage(probes, storage, head),
        tracking_check(tracking_uri, lambda *asked: ray.get(probes[head].tracking.remote(*asked))),
        checks.clocks({name: _skew(handle) for name, handle in probes.items()}),
        _ports(nodes, probes),
        checks.node_tokens(facts),
    )
    return DoctorReport(f"{len(nodes)} nodes of the cluster at {address}", found)


def examine_from_afar(config: ClusterConfig, tracking_uri: str | None) -> DoctorReport:
    """Check access from here, then examine the cluster in a job on it."""
    ca_file = str(config.ca_file) if config.ca_file else None
    uri = tracking_uri or config.tracking_uri
    if uri and without_password(uri) != uri:
        raise ClusterError(
            f"--tracking-uri {without_password(uri)}: has a password, and everyone who sees the cluster sees a job's "
            "command; leave the login out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the head"
        )

    def ping(headers: Mapping[str, str]) -> int:
        return probe.http_get(f"{config.address}/api/jobs/", headers, _TIMEOUT_SECONDS, ca_file).status

    jobs = Jobs(config)
    access = checks.access(config.address, ping({}), ping({"Authorization": "Bearer wrong"}))
    command = ["python", "-m", "cluster", "doctor", "--address", "auto", "--json"]
    command += ["--storage", config.storage] if config.storage else []
    command += ["--tracking-uri", uri] if uri else []
    name = f"doctor-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    jobs.submit(name, command)
    log: list[str] = []
    jobs.follow(name, log.append)
    within = DoctorReport.from_log("".join(log))
    return DoctorReport(f"{within.place}, by {config.address}", (access, *within.checks))


def _place_probes(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with probe_sent_as_code():
        remote: Callable[..., Any] = ray.remote(num_cpus=0, max_restarts=0)(Probe).options
        return {
            name: remote(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
            for name, node in nodes.items()
        }


@contextmanager
def probe_sent_as_code() -> Iterator[None]:
    """Within, Ray sends the code of `Probe` instead of its name, so that a node without the project can run it."""
    from ray import cloudpickle

    modules = (probe, versions)
    for module in modules:
        cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)  # type: ignore[no-untyped-call]


def _of_all(probes: Mapping[str, Any], method: str, *arguments: Any) -> dict[str, Any]:
    import ray

    asked = {name: getattr(handle, method).remote(*arguments) for name, handle in probes.items()}
    return {name: ray.get(reference, timeout=300) for name, reference in asked.items()}


def _skew(handle: Any) -> tuple[float, float]:
    """The node's clock minus this machine's at the middle of the request, and half of the request's duration."""
    import ray

    before = time.time()
    there = float(ray.get(handle.clock.remote()))
    after = time.time()
    return there - (before + after) / 2, (after - before) / 2


def _shared_storage(probes: Mapping[str, Any], folder: str, head: str) -> tuple[Check, Check]:
    import ray

    nonce = secrets.token_hex(4)
    names = {node: f".doctor-{nonce}-{place}" for place, node in enumerate(probes)}
    lock = f"{folder}/.doctor-{nonce}-lock"
    writes = {node: handle.write.remote(folder, names[node]) for node, handle in probes.items()}
    unwritten = {node: str(ray.get(reference)) for node, reference in writes.items()}
    written = {name: node for node, name in names.items() if not unwritten[node]}
    unread = {
        node: [written[name] for name in missing]
        for node, missing in _of_all(probes, "unread", folder, list(written), _PATIENCE_SECONDS).items()
        if not unwritten[node]
    }
    others = {node: handle for node, handle in probes.items() if node != head and not unwritten[node]}
    failed = unwritten[head] or str(ray.get(probes[head].hold.remote(lock)))
    blind = [] if failed else [node for node, held in _of_all(others, "is_held", lock).items() if not held]
    _of_all(probes, "release")
    _of_all(probes, "remove", folder, [*names.values(), Path(lock).name])
    free = _free_bytes(folder) if not any(unwritten.values()) else 0
    return checks.storage(folder, unwritten, unread, free), checks.locks(folder, blind, failed)


def _own_storage(here: Probe, storage: Path) -> tuple[Check, ...]:
    """`storage`, or the folder in which it would be created."""
    folder = storage.absolute()
    while not folder.exists():
        folder = folder.parent
    name = f".doctor-{secrets.token_hex(4)}"
    failed = here.write(str(folder), name)
    unread = [] if failed else here.unread(str(folder), [name], 0.0)
    lock_failed = failed or here.hold(f"{folder}/{name}")
    blind = [] if lock_failed or Probe().is_held(f"{folder}/{name}") else ["this machine"]
    here.release()
    if not failed:
        here.remove(str(folder), [name])
    written = checks.storage(str(storage), {"it": failed}, {"it": unread}, _free_bytes(str(folder)))
    return written, checks.locks(str(folder), blind, lock_failed)


def _free_bytes(folder: str) -> int:
    return shutil.disk_usage(folder).free


def tracking_check(uri: str | None, ask: Callable[[str, float], tuple[int, str, int]]) -> Check:
    """The check of the named MLflow, or of that in the environment; `ask` has the form of `Probe.tracking`."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        return Check("MLflow", "ok", "none given: a sweep keeps mlflow.db beside its records")
    try:
        parts = urlsplit(uri)
        server = parts.scheme in ("http", "https")
        valid = "://" in uri and (not server or (bool(parts.hostname) and parts.port != 0))
    except ValueError:
        valid = False
    if not valid:
        example = "http://HOST:5000; in a login, special characters are percent-encoded (@ as %40, # as %23)"
        return Check("MLflow", "failed", "the tracking URI is not an address", f"write it as {example}")
    if not server:
        return Check("MLflow", "skipped", f"{parts.scheme}: a store without a server is tried by the sweep")
    return checks.tracking(without_password(uri), *ask(uri, _TIMEOUT_SECONDS))


def _ports(nodes: Mapping[str, Mapping[str, Any]], probes: Mapping[str, Any]) -> Check:
    import ray

    targets = {
        name: [(node["NodeManagerAddress"], node[key]) for key in ("NodeManagerPort", "ObjectManagerPort")]
        for name, node in nodes.items()
    }
    asked = {
        name: handle.unreachable.remote([t for other, ts in targets.items() if other != name for t in ts], 3.0)
        for name, handle in probes.items()
    }
    if len(nodes) == 1:
        return Check("ports", "skipped", "one node is up; ask again while autoscaled workers are")
    return checks.ports({name: ray.get(answer) for name, answer in asked.items()}, 2 * (len(nodes) - 1))


def _own_token() -> Check:
    try:
        token = find_token()
    except ClusterError as error:
        return Check("token", "warn", f"{error} (a sweep on this machine does not use it)")
    own = "a sweep on this machine makes its own, for itself alone"
    return Check("token", "ok", f"found where Ray looks; {own}" if token else own)


def _all_nodes() -> list[dict[str, Any]]:
    import ray

    return list(ray.nodes())  # type: ignore[no-untyped-call]


def _node_name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}"
