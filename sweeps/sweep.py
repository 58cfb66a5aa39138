"""run_sweep: the one place that wires faces, study, runner, journal and tracker together."""

from __future__ import annotations

import contextlib
import signal
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal, overload

from pydantic import ValidationError

from cluster.connect import prepare_environment
from fer_data import Faces, limit_train, open_cached, prepare
from fer_models.precision import device_kind, fastest
from sweeps.config import TrialConfig, explain, with_settings
from sweeps.director import Director, Listener
from sweeps.environment import driver_started, free_bytes
from sweeps.errors import InputError
from sweeps.messages import FacesRef
from sweeps.resources import Slots, choose_device, plan_slots, visible_gpus
from sweeps.runner import InlineRunner, Runner, TrialBody
from sweeps.space import Space, find_space
from sweeps.spec import SweepSpec, check_name, space_label
from sweeps.trial import run_trial
from tracking.default_store import resolve_tracking_uri
from tracking.errors import TrackingError
from tracking.events import DriverStopped, SweepEnded, SweepStarted
from tracking.files import write_json
from tracking.folder_lock import hold_folder
from tracking.history import SweepHistory, TrialHistory
from tracking.journal import Journal, read
from tracking.layout import SweepFolder

_SAMPLES_CHECKED = 20
_LEAST_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Options:
    """What a sweep is asked to do besides its space; the command line's options, under the same names.

    None is "not said": the space's or the program's default, or, in a resume, what the sweep has already.
    """

    data: str | None = None
    trials: int | None = None
    epochs: int | None = None
    limit_train: int | None = None
    time_budget_seconds: float | None = None
    name: str | None = None
    out: Path = Path("runs")
    tracking_uri: str | None = None
    runner: Literal["ray", "inline"] | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    device: Literal["auto", "cpu", "cuda"] | None = None
    max_concurrent: int | None = None
    seed: int | None = None
    settings: dict[str, Any] | None = None
    resume: bool = False
    figures: bool = True

    def check(self) -> None:
        """Raise InputError naming every option out of its range."""
        faults = [
            f"--{name.replace('_', '-')} {value}: must be at least {least}"
            for name, value, least in (
                ("trials", self.trials, 1),
                ("epochs", self.epochs, 1),
                ("limit_train", self.limit_train, 1),
                ("max_concurrent", self.max_concurrent, 1),
                ("seed", self.seed, 0),
            )
            if value is not None and value < least
        ]
        if self.time_budget_seconds is not None and self.time_budget_seconds <= 0:
            faults.append(f"--time-budget {self.time_budget_seconds:g} s: must be above 0")
        if self.data == "":
            faults.append("--data '': give a csv, or leave --data out for synthetic faces")
        if faults:
            raise InputError("; ".join(faults))

    def completed_by(self, spec: SweepSpec) -> Options:
        """These options, with what they leave unsaid taken from a sweep that is resumed."""
        said = {name: value for name in Options.__dataclass_fields__ if (value := getattr(self, name)) is not None}
        return Options(**_options_of(spec) | said)


def _options_of(spec: SweepSpec) -> dict[str, Any]:
    return {
        "data": spec.data,
        "trials": spec.trials,
        "epochs": spec.max_epochs,
        "limit_train": spec.faces.limit_train,
        "runner": spec.runner,
        "device": spec.device,
        "cpus_per_trial": spec.cpus_per_trial,
        "gpus_per_trial": spec.gpus_per_trial,
        "max_concurrent": spec.max_concurrent,
        "seed": spec.seed,
        "settings": spec.settings,
    }


class SweepResult(Sequence[TrialHistory]):
    """The trials of a sweep, by number, and how the run of it ended."""

    def __init__(
        self, folder: SweepFolder, history: SweepHistory, stop_reason: str | None, signal_number: int | None,
        faults: Sequence[str], backlog: int,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.history = history
        self.stop_reason = stop_reason
        self.signal_number = signal_number
        self.faults = tuple(faults)
        self.backlog = backlog
        self._trials = [trial for _, trial in sorted(history.trials.items())]

    @overload
    def __getitem__(self, index: int) -> TrialHistory: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrialHistory]: ...
    def __getitem__(self, index: int | slice) -> TrialHistory | list[TrialHistory]:
        return self._trials[index]

    def __len__(self) -> int:
        return len(self._trials)

    @property
    def exit_code(self) -> int:
        """0 it did what was asked; 1 a trial died of a fault, or none is done; 130 Ctrl-C; 143 SIGTERM."""
        if self.signal_number is not None:
            return 128 + self.signal_number
        if self.faults:
            return 1
        return 0 if self.stop_reason or self.history.count("done") else 1


@dataclass(frozen=True)
class Plan:
    """A sweep made ready: everything checked, nothing written yet."""

    space: Space
    spec: SweepSpec
    options: Options
    slots: Slots
    faces: Faces
    folder: SweepFolder

    @property
    def at_once(self) -> int:
        """Trials at once."""
        return self.slots.count if self.spec.runner == "ray" else 1

    def is_finished(self) -> bool:
        """Whether the sweep of that name has run all the trials asked for."""
        if not _recorded(self.folder):
            return False
        history = SweepHistory.load(self.folder.journal)
        return not history.unfinished and history.next_number >= self.spec.trials

    def resolve(self, config: TrialConfig) -> TrialConfig:
        """`config` with `auto` replaced by what measured fastest for the net on the sweep's device."""
        if "auto" not in (config.precision, config.memory_format):
            return config
        precision, memory_format = fastest(config.net.name, device_kind(self.spec.device))
        return config.model_copy(
            update={
                "precision": precision if config.precision == "auto" else config.precision,
                "memory_format": memory_format if config.memory_format == "auto" else config.memory_format,
            }
        )


def run_sweep(
    space: Space | str, *, listeners: Sequence[Listener] = (), body: TrialBody = run_trial, **options: Any
) -> SweepResult:
    """Run a sweep, or go on with one (`resume=True`), and return its trials.

    `space` is a Space, a built-in space's name or the path of a file that defines SPACE; `options` are the fields of
    `Options`. Works in a notebook. Raises InputError, DataError or TrackingError for bad input, before anything is
    written.
    """
    plan = make_plan(space, Options(**options))
    return run_plan(plan, listeners=listeners, body=body)


def make_plan(space: Space | str, options: Options) -> Plan:
    """Check everything that can be checked without a trial."""
    options.check()
    found = find_space(space) if isinstance(space, str) else space
    label = space if isinstance(space, str) else (space.name or "space")
    found = replace(found, name=space_label(label))
    name = check_name(options.name or f"{found.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    folder = SweepFolder(options.out / name)
    recorded = _recorded(folder)
    if recorded:
        if not options.resume:
            raise InputError(f"{folder.root} exists already: add --resume to go on with it, or choose another --name")
        options = options.completed_by(recorded)
    device = choose_device(options.device or "auto", visible_gpus())
    slots = plan_slots(
        device,
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
        max_concurrent=options.max_concurrent,
    )
    faces, reference = _open_faces(options)
    trials = options.trials or found.trials
    max_epochs = options.epochs or found.max_epochs
    spec = SweepSpec(
        name=name,
        space=str(label),
        data="synthetic" if options.data is None else str(options.data),
        dataset=faces.name,
        fingerprint=faces.fingerprint,
        synthetic=faces.synthetic,
        classes=faces.classes,
        faces=reference,
        trials=trials,
        max_epochs=max_epochs,
        baselines={baseline.name: baseline.reported for baseline in found.baselines[:trials]},
        baseline_epochs=found.baseline_epochs(trials, max_epochs),
        seed=options.seed or 0,
        settings=options.settings or {},
        figures=options.figures,
        runner=options.runner or "ray",
        device=device,
        threads=slots.threads,
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
        max_concurrent=options.max_concurrent,
    )
    plan = Plan(found, spec, replace(options, name=name), slots, faces, folder)
    _check_configurations(plan)
    if device == "cuda" and options.gpus_per_trial is None and spec.runner == "ray":
        plan = _share_gpus(plan)
    if recorded:
        recorded.refuse_if_changed(spec)
    return plan


def _share_gpus(plan: Plan) -> Plan:
    """Let as many trials share a GPU as its memory holds of the largest configuration seen."""
    from sweeps.gpu_share import measured_share

    options = plan.options
    slots = plan_slots(
        "cuda",
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=measured_share(plan),
        max_concurrent=options.max_concurrent,
    )
    return replace(plan, slots=slots, spec=plan.spec.model_copy(update={"threads": slots.threads}))


def sample_configurations(plan: Plan, count: int) -> list[TrialConfig]:
    """`count` configurations drawn at random from the space, with the sweep's settings."""
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=plan.spec.seed % 2**32))
    drawn = [plan.space.draw(study.ask()) for _ in range(count)]
    return [plan.resolve(with_settings(config, plan.spec.settings)) for config in drawn]


def run_plan(
    plan: Plan,
    *,
    listeners: Sequence[Listener] = (),
    on_warning: Callable[[str], None] = warnings.warn,
    body: TrialBody = run_trial,
) -> SweepResult:
    """Run a plan to its end, or until a signal or the time budget stops it."""
    from tracking.mlflow_sink import MlflowSink

    folder = plan.folder
    _check_space_left(folder)
    folder.create()
    with hold_folder(folder.root), Journal.open(folder.journal) as journal:
        history, study = _open_books(plan, journal)
        out = plan.options.out
        uri = resolve_tracking_uri(plan.options.tracking_uri, out)
        sink = MlflowSink(folder.journal, tracking_uri=uri, out=out, on_warning=on_warning)
        director = Director(
            folder,
            plan.spec,
            plan.space,
            history,
            journal,
            study,
            resolve=plan.resolve,
            time_budget_seconds=plan.options.time_budget_seconds,
            listeners=(*listeners, lambda *_: sink.wake()),
        )
        sink.start()
        writable, backlog = True, 0
        with _signals_stop(director) as received:
            try:
                if not director.exhausted:
                    _runner(plan).run(director, body)
            except TrackingError:
                writable = False
                raise
            finally:
                if writable:
                    director.leave()
                    _close_books(director, journal, plan)
                sink.wake()
                backlog = sink.close(5.0 if received else 60.0)
    return SweepResult(
        folder, history, director.stop_reason, received[0] if received else None, director.faults, backlog
    )


def _runner(plan: Plan) -> Runner:
    if plan.spec.runner == "inline":
        return InlineRunner()
    prepare_environment()
    from sweeps.ray_runner import RayRunner

    return RayRunner(plan.slots)


def _recorded(folder: SweepFolder) -> SweepSpec | None:
    """What the sweep has been asked to do; None where a driver was killed before its first line, or there was none."""
    if not folder.journal.is_file() or next(read(folder.journal), None) is None:
        return None
    return recorded_spec(SweepHistory.load(folder.journal))


def recorded_spec(history: SweepHistory) -> SweepSpec:
    """What the sweep was last asked to do."""
    specs = [driver.spec for driver in history.drivers if driver.spec]
    try:
        return SweepSpec.model_validate(specs[-1] if specs else history.started.spec)
    except ValidationError as error:
        raise InputError(
            f"{history.started.name}: its journal was written by another version: {explain(error)}"
        ) from None


def _open_faces(options: Options) -> tuple[Faces, FacesRef]:
    folder = prepare(options.data)
    faces = open_cached(folder)
    if options.limit_train is not None:
        faces = limit_train(faces, options.limit_train, options.seed or 0)
    return faces, FacesRef(folder=str(folder), limit_train=options.limit_train, limit_seed=options.seed or 0)


def _check_configurations(plan: Plan) -> None:
    """Meet the space's faults, and those between space and data, before anything is written."""
    settings = plan.spec.settings
    configs = [plan.resolve(with_settings(baseline.config, settings)) for baseline in plan.space.baselines]
    configs += sample_configurations(plan, _SAMPLES_CHECKED)
    images = len(plan.faces.train)
    too_large = sorted({config.recipe.batch_size for config in configs if config.recipe.batch_size > images})
    if too_large:
        raise InputError(
            f"batch_size {', '.join(map(str, too_large))}: larger than the train split of {images} images; "
            "use more images, or --set batch_size=N"
        )


def _check_space_left(folder: SweepFolder) -> None:
    free = free_bytes(folder.root)
    if free < _LEAST_FREE_BYTES:
        raise InputError(
            f"{folder.root}: {free / 2**30:.2f} GiB free, a sweep wants {_LEAST_FREE_BYTES / 2**30:.0f} GiB at least; "
            "free some, or choose another --out"
        )


def _open_books(plan: Plan, journal: Journal) -> tuple[SweepHistory, Any]:
    from sweeps.study import Study

    folder, spec = plan.folder, plan.spec
    events = list(read(folder.journal))
    if not events:
        opening = SweepStarted(
            sweep_id=uuid.uuid4().hex,
            name=spec.name,
            space=plan.space.name,
            tags=_tags(spec),
            spec=spec.model_dump(mode="json"),
        )
        journal.append(opening)
        events = [opening]
    history = SweepHistory.replay(events)
    write_json(folder.spec, spec.model_dump(mode="json"))
    study = Study(folder.study_log, plan.space, spec.seed, events)
    if history.unfinished or history.next_number < spec.trials:
        started = driver_started(spec, resumed=len(events) > 1)
        journal.append(started)
        history.apply(started)
    return history, study


def _close_books(director: Director, journal: Journal, plan: Plan) -> None:
    history = director.history
    if history.finished:
        return
    over = not history.unfinished and history.next_number >= plan.spec.trials
    states: tuple[Literal["done", "pruned", "failed", "stopped"], ...] = ("done", "pruned", "failed", "stopped")
    last = (
        SweepEnded(**{state: history.count(state) for state in states})
        if over
        else DriverStopped(reason=director.stop_reason or "the runner ended")
    )
    journal.append(last)
    history.apply(last)


def _tags(spec: SweepSpec) -> dict[str, str]:
    tags = {"dataset": spec.dataset, "dataset.fingerprint": spec.fingerprint, "sweep.seed": str(spec.seed)}
    return tags | ({"faces": "SYNTHETIC"} if spec.synthetic else {})


@contextlib.contextmanager
def _signals_stop(director: Director) -> Iterator[list[int]]:
    """Turn the first SIGINT or SIGTERM into a request to stop, the second into an immediate KeyboardInterrupt."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        director.request_stop(f"stopped by {signal.Signals(number).name}")
        if len(received) > 1:
            raise KeyboardInterrupt
        sys.stderr.write("\nstopping at the end of this epoch, in 20 s at most; once more to leave at once\n")

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # not the main thread, as in some notebooks: their own way of interrupting holds
        yield received
        return
    try:
        yield received
    except KeyboardInterrupt:
        if not received:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
