"""The GPU share of each net's trials, from memory and throughput measured on the node where they will run.

Each distinct shape of configuration (net, batch size, optimizer …) of the baselines and some samples is measured on an
otherwise idle GPU. The measurements are cached with the faces, per kind of GPU, driver and torch version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cluster.connect import joined_ray, one_node_of_each_kind
from cluster.gpus import GpuFacts, own_gpus
from fer_data import DataOptions
from sweeps.config import TrialConfig
from sweeps.node.mps import MpsError, mps, obstacle
from sweeps.planning.gpu_measure import Measured, fitting, measure
from sweeps.trial.run_trial import cache_here
from tracking.record.files import write_json

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan

_SHAPES_PER_NET = 4
HARMLESS_LR = 1e-8
"""A learning rate at which nothing that is measured diverges; it affects neither memory nor time."""
_PATIENCE_SECONDS = 900.0
"""How long to wait for nodes that the autoscaler starts, and for other sweeps to free a GPU."""
_GIBIBYTE = 2**30

# Settings of a recipe that affect memory or time.
_RECIPE = ("optimizer", "batch_size", "label_smoothing", "class_weights", "clip_norm", "ema_decay", "views")
_TRANSFER = ("freeze", "finetune_freeze")


@dataclass(frozen=True)
class Sized:
    """Measurements on one node, by net, and the free memory of its GPU. `mps_fault` is why MPS did not run."""

    nets: dict[str, Measured] = field(default_factory=dict)
    free_bytes: int = 0
    fault: str | None = None
    mps_fault: str | None = None

    def trials(self, net: str) -> int:
        """How many trials of a net run on one GPU at once."""
        measured = self.nets.get(net, Measured())
        return min(fitting(measured.peak_bytes, self.free_bytes), measured.worthwhile)

    def words(self, net: str) -> str:
        """The reason for a net's share, as text."""
        measured, trials = self.nets.get(net, Measured(fault=self.fault)), self.trials(net)
        if not measured.rates:
            return f"{net}: 1 trial per GPU, since it could not be measured: {measured.fault}"
        together = f", {measured.rates[trials - 1]:,.0f} of {trials} together" if trials > 1 else ""
        beyond = f", {measured.rates[trials]:,.0f} of {trials + 1}" if trials < len(measured.rates) else ""
        return (
            f"{net}: {trials} trial{'s' if trials > 1 else ''} per GPU; {measured.peak_bytes / _GIBIBYTE:.1f} GiB each "
            f"of {self.free_bytes / _GIBIBYTE:.0f} free; {measured.rates[0]:,.0f} images/s of one{together}{beyond}"
        )


@dataclass(frozen=True)
class Sizing:
    """The GPU share by net, its reasons, and why MPS did not run during the measurement, if it did not."""

    shares: dict[str, float]
    notes: tuple[str, ...]
    mps_fault: str | None = None


def measured_shares(plan: Plan, configs: Iterable[TrialConfig]) -> Sizing:
    """Measure on this machine, or on one node of each kind in the cluster; each net gets its largest share."""
    shapes = shapes_by_net(configs)
    asked = _Asked(
        {net: [config.model_dump(mode="json") for config in configs] for net, configs in shapes.items()},
        faces=plan.spec.faces,
        data=plan.spec.data,
        most=max(1, sum(plan.slots.node_cpus) // plan.slots.gpus),
    )
    sized = [_size_here(asked)] if plan.options.address is None else _size_nodes(plan.options.address, asked)
    tightest = {net: min(sized, key=lambda one: one.trials(net)) for net in shapes}
    return Sizing(
        {net: 1 / one.trials(net) for net, one in tightest.items()},
        tuple(one.words(net) for net, one in tightest.items()),
        next((one.mps_fault for one in sized if one.mps_fault), None),
    )


def shapes_by_net(configs: Iterable[TrialConfig]) -> dict[str, list[TrialConfig]]:
    """One configuration of each shape, by net. If there are many shapes, those with the largest batches.

    Their learning rates are too low for divergence, and each trains as many stages as its trials will train at most.
    """
    found: dict[str, dict[str, TrialConfig]] = {}
    for config in configs:
        content = config.model_dump(mode="json")
        content["recipe"] = {name: content["recipe"][name] for name in _RECIPE}
        content["transfer"] = {name: content["transfer"][name] for name in _TRANSFER}
        del content["replicate"]
        found.setdefault(config.net.name, {}).setdefault(json.dumps(_without_amounts(content)), _harmless(config))
    by_size = {net: sorted(shapes.values(), key=_batch_size, reverse=True) for net, shapes in found.items()}
    return {net: configs[:_SHAPES_PER_NET] for net, configs in by_size.items()}


def _without_amounts(content: Any) -> Any:
    """`content` with each float replaced by whether it is set: its value does not change the shape."""
    if isinstance(content, dict):
        return {name: _without_amounts(value) for name, value in content.items()}
    return bool(content) if isinstance(content, float) else content


def _batch_size(config: TrialConfig) -> int:
    return config.recipe.batch_size


def _harmless(config: TrialConfig) -> TrialConfig:
    transfer = config.transfer
    if transfer.finetune_freeze is not None:
        transfer = transfer.model_copy(update={"freeze": transfer.finetune_freeze})
    one_phase = {"finetune_epochs_share": 0.0, "finetune_freeze": None, "finetune_lr": None}
    return config.model_copy(
        update={
            "recipe": config.recipe.model_copy(update={"lr": HARMLESS_LR}),
            "transfer": transfer.model_copy(update=one_phase),
        }
    )


@dataclass(frozen=True)
class _Asked:
    """What a node is to measure: configurations as JSON by net, and the maximum of trials per GPU by its cores."""

    nets: dict[str, list[dict[str, Any]]]
    faces: str
    data: DataOptions
    most: int


def _size_here(asked: _Asked) -> Sized:
    """Measurements of this machine's GPU, under MPS if possible."""
    why_not = obstacle()
    if why_not is None:
        try:
            with mps():
                sized = _size(asked, uses_mps=True)
            if sized.nets and all(measured.rates for measured in sized.nets.values()):
                return sized
            why_not = "nothing could be measured with it"
        except MpsError as error:
            why_not = str(error)
    return replace(_size(asked, uses_mps=False), mps_fault=why_not)


def _size_nodes(address: str, asked: _Asked) -> list[Sized]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with joined_ray(address):
        nodes = one_node_of_each_kind()
        size: Any = ray.remote(num_gpus=1, num_cpus=1, max_retries=0)(cast(Any, _size_here))
        affine = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
        places: list[Any] = [*affine] or ["DEFAULT"]  # the autoscaler starts one
        running = [size.options(scheduling_strategy=place).remote(asked) for place in places]
        try:
            return list(ray.get(running, timeout=_PATIENCE_SECONDS))
        except GetTimeoutError:
            fault = f"no GPU of the cluster was free for the measurement within {_PATIENCE_SECONDS / 60:.0f} minutes"
        except RayError as error:
            fault = str(error).strip().partition("\n")[0]
        for reference in running:
            ray.cancel(reference, force=True)
    return [Sized(fault=fault)]


def _size(asked: _Asked, *, uses_mps: bool) -> Sized:
    """Measure on this machine what is not yet cached for its kind of GPU."""
    facts = own_gpus()
    if not facts.gpus or facts.fault:
        return Sized(fault=facts.fault or "the driver lists no GPU")
    free = min(gpu.free_bytes for gpu in facts.gpus)
    faces = cache_here(asked.faces, asked.data)
    nets = {net: [TrialConfig.model_validate(config) for config in configs] for net, configs in asked.nets.items()}
    files = {
        net: faces.parent / "gpu_shares" / f"{_key(facts, configs, uses_mps)}.json" for net, configs in nets.items()
    }
    known = {net: measured for net, path in files.items() if (measured := _kept(path, free, asked.most))}
    unknown = {net: configs for net, configs in nets.items() if net not in known}
    found = measure(unknown, faces=str(faces), device="cuda", free_bytes=free, most=asked.most) if unknown else {}
    for net, measured in found.items():
        if measured.rates:
            files[net].parent.mkdir(exist_ok=True)
            write_json(files[net], asdict(measured))
    return Sized(known | found, free)


def _key(facts: GpuFacts, configs: list[TrialConfig], uses_mps: bool) -> str:
    """A hash of everything that the measurements depend on, except free memory and the number of cores."""
    gpus = sorted({(gpu.name, gpu.total_bytes) for gpu in facts.gpus})
    driver = facts.driver.version if facts.driver else None
    content = [gpus, driver, version("torch"), version("fer-sweeps"), uses_mps, [config.id for config in configs]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def _kept(path: Path, free_bytes: int, most: int) -> Measured | None:
    """The cached measurements, if they cover as many trials at once as are possible now."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        measured = Measured(content["peak_bytes"], tuple(content["rates"]))
    except (OSError, ValueError, KeyError):
        return None
    wanted = min(fitting(measured.peak_bytes, free_bytes), most)
    return measured if measured.is_exhausted or len(measured.rates) >= wanted else None
