"""Makes a plan: checks options, space and data against each other before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice

from fer_data import Faces, open_cached, prepare
from fer_models.configs.precision import device_kind, fastest
from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.fixed_space import with_options
from sweeps.options import Options, RecordedOptions
from sweeps.planning.budgets import Budgets
from sweeps.planning.checks import (
    check_budgets,
    check_configurations,
    check_draws,
    check_graphs,
    check_groups,
    check_objectives,
    check_priors,
)
from sweeps.planning.edited_baselines import with_begun_baselines
from sweeps.planning.edited_space import SpaceEdit, space_edit
from sweeps.planning.processes import check_lanes, with_processes, with_share_of_lanes
from sweeps.planning.references import References
from sweeps.planning.resources import Device, Hardware, Slots, choose_device, plan_slots
from sweeps.search.drawn_as import as_redrawn
from sweeps.search.warm_start import NOTHING_TAKEN, WarmStart, warm_start
from sweeps.space import Space
from sweeps.spaces.find import find_space
from sweeps.spaces.find import recordable as recordable_space
from sweeps.spec import SweepSpec, check_name, recorded_spec, space_label
from tracking.mlflow_sync.uri import recordable, resolve_tracking_uri
from tracking.record.events import Drawn
from tracking.record.history import SweepHistory
from tracking.record.journal import read
from tracking.record.layout import SweepFolder

_SAMPLES_CHECKED = 20


@dataclass(frozen=True)
class Plan:
    """A sweep's plan. Everything is checked, and nothing is written except the cached faces."""

    space: Space
    spec: SweepSpec
    options: Options
    slots: Slots
    faces: Faces
    folder: SweepFolder
    hardware: Hardware
    sizing: tuple[str, ...] = ()
    """The reasons for the GPU shares, as text."""
    recorded: SweepHistory | None = None
    """The journal so far, on a resume."""
    start: WarmStart = NOTHING_TAKEN
    """What the sampler takes from other sweeps at the start (`--from`)."""
    edit: SpaceEdit | None = None
    """How the sampler learns from earlier trials, on a resume with an edited space."""

    @cached_property
    def budgets(self) -> Budgets:
        """The limits of the sweep."""
        return Budgets(self.spec, self.options.until)

    @cached_property
    def _references(self) -> References:
        return References(self.spec, self.options)

    @property
    def tracking_uri(self) -> str:
        """The tracking URI, with its password."""
        return resolve_tracking_uri(self.options.tracking_uri, self.options.out, self.spec.tracking_uri)

    @property
    def notes(self) -> list[str]:
        """Decisions about the GPUs, as text."""
        if self.hardware.facts.fault and self.hardware.gpus and self.spec.device == "cpu":
            return [f"no GPU is used: {self.hardware.facts.fault}"]
        return [str(self.hardware), *self.sizing] if self.spec.device == "cuda" and str(self.hardware) else []

    @property
    def at_once(self) -> int:
        """Maximum number of trials at once."""
        return self.slots.count if self.spec.runner == "ray" else 1

    @property
    def room(self) -> int:
        """Maximum number of trials at once without --max-concurrent, which may change later."""
        return self.slots.room if self.spec.runner == "ray" else 1

    @property
    def redrawn(self) -> Mapping[int, Drawn | None]:
        """How the edited space draws the earlier trials."""
        if self.edit and self.edit.redrawn is not None:
            return self.edit.redrawn
        return self.recorded.redrawn if self.recorded else {}

    def is_finished(self) -> bool:
        """Whether the sweep of that name has run all requested trials."""
        history = self.recorded
        return history is not None and not history.unfinished and not self.spec.to_start(history)

    def check(self, config: TrialConfig) -> None:
        """Refuse a configuration that cannot be trained in this sweep."""
        check_configurations([self.resolve(config)], self.faces, self.spec, self.hardware)

    def resolve(self, config: TrialConfig) -> TrialConfig:
        """`config` with `auto` replaced by the settings that measured fastest for the net on the sweep's device, and
        with references to other runs replaced by their paths."""
        config = self._references.found(config)
        if "auto" not in (config.precision, config.memory_format):
            return config
        precision, memory_format = fastest(
            config.net.name, device_kind(self.spec.device, capability=self.hardware.capability)
        )
        return config.model_copy(
            update={
                "precision": precision if config.precision == "auto" else config.precision,
                "memory_format": memory_format if config.memory_format == "auto" else config.memory_format,
            }
        )


def make_plan(
    space: Space | str,
    options: Options,
    hardware_for: Callable[[Options], Hardware],
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Check everything that can be checked without a trial; slow steps are reported to `say`.

    `hardware_for` finds the cores and GPUs that a sweep with these options may use: `find_hardware`, except in tests.
    """
    found = find_space(space) if isinstance(space, str) else space
    label = recordable_space(space) if isinstance(space, str) else (space.name or "space")
    found = as_written = replace(found, name=space_label(label))
    name = check_name(options.name or f"{found.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    folder = SweepFolder(options.out / name)
    history = recorded_history(folder)
    recorded = recorded_spec(history) if history else None
    if recorded:
        if not options.resume:
            raise InputError(f"{folder.root} exists already: add --resume to continue it, or choose another --name")
        found = recorded.as_at_its_start(found, new_baselines="which_baselines" in options.model_fields_set)
        options = options.completed_by(recorded)
    else:
        options = options.with_groups_of(found)
    check_priors(found, options.seed)
    found = with_options(found, options)
    check_objectives(found)
    uri = resolve_tracking_uri(options.tracking_uri, options.out, recorded.tracking_uri if recorded else None)
    hardware = hardware_for(options)
    device = choose_device(options.device, hardware.gpus, hardware.facts.fault)
    options = with_share_of_lanes(options, device)
    slots = _slots(device, options, hardware)
    data = options.data.with_absolute_paths()
    cached = prepare(data)
    faces = open_cached(cached)
    options = options.model_copy(update={"name": name, "data": data})
    trials = _trials(found, options.trials, recorded.trials if recorded else 0)
    spec = _spec(found, str(label), options, faces, str(cached), device, slots, trials)
    spec = spec.model_copy(update={"tracking_uri": recordable(uri, options.out)})
    spec = with_begun_baselines(spec, history) if history else spec
    start = NOTHING_TAKEN if recorded else warm_start(found, spec, options.out)
    plan = Plan(found, spec, options, slots, faces, folder, hardware, recorded=history, start=start)
    if history:
        plan = replace(plan, edit=space_edit(found, spec, history, as_written, plan.resolve))
    _check_trials(plan)
    if spec.runner == "ray":
        needs_measure = device == "cuda" and spec.gpus_per_trial is None
        plan = _share_gpus(plan, say) if needs_measure else with_processes(plan)
    if recorded:
        recorded.refuse_if_changed(spec)
    return plan


def _check_trials(plan: Plan) -> None:
    """Check what the spec asks of every trial, the baselines, and some configurations. Raises InputError."""
    check_graphs(plan.spec)
    check_lanes(plan.spec, plan.slots)
    check_groups(plan.spec)
    check_budgets(plan)
    check_draws(plan.space, plan.spec.seed)
    configs = [config for _, config in configurations(plan, _SAMPLES_CHECKED)]
    check_configurations(configs, plan.faces, plan.spec, plan.hardware)


def _spec(
    space: Space, label: str, options: Options, faces: Faces, cached: str, device: Device, slots: Slots, trials: int
) -> SweepSpec:
    max_epochs = space.max_epochs
    resolved = {
        "trials": trials,
        "max_epochs": max_epochs,
        "sampler": space.sampler,
        "pruner": space.pruner,
        "first_rung_epochs": space.first_rung,
        "reduction_factor": space.kept_one_in,
        "later_factor": space.later_kept_one_in,
        "loss_epochs": space.compared_by_loss,
        "objectives": tuple(space.objectives),
        "rungs": space.rungs,
        "device": device,
        "gpus_per_trial": None if options.gpus_per_trial == "auto" else options.gpus_per_trial,
        "name": options.name,
        "space": label,
        "dataset": faces.name,
        "fingerprint": faces.fingerprint,
        "synthetic": faces.synthetic,
        "classes": faces.classes,
        "faces": cached,
        "baselines": {baseline.name: baseline.reported for baseline in space.baselines[:trials]},
        "baseline_epochs": tuple(baseline.epochs_in(max_epochs) for baseline in space.baselines[:trials]),
        "threads": slots.threads,
        "workers": slots.workers,
        "fold_faces": _fold_faces(options),
    }
    return SweepSpec(**{name: getattr(options, name) for name in RecordedOptions.model_fields} | resolved)


def _fold_faces(options: Options) -> tuple[str, ...]:
    folds = options.folds or 0
    if options.data.fold is not None:
        return ()
    return tuple(
        str(prepare(options.data.model_copy(update={"fold": fold, "folds": folds}))) for fold in range(1, folds + 1)
    )


def _trials(space: Space, asked: int | None, recorded: int) -> int:
    """The number of trials; for a grid all of its points, unless fewer are requested.

    A sweep may have `recorded` more, since persons asked for some.
    """
    if space.sampler != "grid":
        return asked or space.trials
    from sweeps.search.samplers import refuse_beyond_grid, whole_grid

    if asked and asked > recorded:
        refuse_beyond_grid(space, asked)
    return asked or whole_grid(space)


def _slots(device: Device, options: Options, hardware: Hardware, measured: float | None = None) -> Slots:
    asked = None if options.gpus_per_trial == "auto" else options.gpus_per_trial
    return plan_slots(
        device,
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=measured if asked is None else asked,
        workers_per_trial=options.workers_per_trial,
        max_concurrent=options.max_concurrent,
        node_cpus=hardware.node_cpus,
        node_gpus=hardware.node_gpus or (0,),
    )


def _share_gpus(plan: Plan, say: Callable[[str], None]) -> Plan:
    """Choose how many trials share a GPU, by measured memory and throughput of the space's nets."""
    from sweeps.planning.gpu_share import measured_shares

    if plan.options.max_concurrent is not None and plan.options.max_concurrent <= plan.slots.gpus:
        return with_processes(plan)
    say("measuring how many trials a GPU can run at once (--gpus-per-trial X skips this)")
    sizing = measured_shares(plan, [config for _, config in configurations(plan, _SAMPLES_CHECKED)])
    slots = _slots("cuda", plan.options, plan.hardware, min(sizing.shares.values()))
    spec = plan.spec.model_copy(update={"threads": slots.threads, "gpu_shares": sizing.shares})
    return with_processes(replace(plan, slots=slots, spec=spec, sizing=sizing.notes), sizing.mps_fault)


def configurations(plan: Plan, samples: int) -> Iterator[tuple[str, TrialConfig]]:
    """Every baseline and `samples` configurations drawn from the space, with titles."""
    for baseline in plan.space.baselines:
        yield baseline.name, plan.resolve(baseline.config)
    for number, config in enumerate(sample_configurations(plan, samples), start=1):
        yield f"sample {number}", config


def sample_configurations(plan: Plan, count: int) -> list[TrialConfig]:
    """`count` configurations drawn at random from the space, with the sweep's settings."""
    from sweeps.search.proposals import drawn_parameters, random_trials

    recorded = plan.recorded.trials.values() if plan.recorded else ()
    redrawn = plan.redrawn
    starts = (as_redrawn(trial.started, redrawn) for trial in recorded)
    known = drawn_parameters(started for started in starts if started)
    trials = islice(random_trials(plan.spec.seed, known), count)
    return [plan.resolve(plan.space.draw(trial)) for trial in trials]


def recorded_history(folder: SweepFolder) -> SweepHistory | None:
    """The journal's history. None if there is no journal, or if a driver was killed before it wrote the first line."""
    if not folder.journal.is_file() or next(read(folder.journal), None) is None:
        return None
    history = SweepHistory.load(folder.journal)
    history.end_driver()  # it is to be resumed, so a driver that recorded no end was killed
    return history
