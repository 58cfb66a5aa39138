"""`run_sweep`: connects faces, study, runner, journal and tracker."""

from __future__ import annotations

import contextlib
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, overload

from cluster.connect import prepare_environment
from sweeps.after.finish import AtEnd, Closing
from sweeps.after.pictures.trial_pictures import TrialPictures
from sweeps.driver.acts import Acts
from sweeps.driver.director import Attendant, Director
from sweeps.driver.environment import differences, driver_started, free_bytes
from sweeps.driver.kept_states import KeptStates
from sweeps.driver.kept_weights import KeptWeights
from sweeps.driver.notify import Notifier
from sweeps.driver.recorder import Listener
from sweeps.driver.runner import InlineRunner, QueuedRunner, Runner, TrialBody
from sweeps.errors import InputError
from sweeps.node.lanes import Lanes
from sweeps.options import Options
from sweeps.planning.budgets import FailureLimit
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import Plan, make_plan
from sweeps.sharing.gpu_places import GpuPlaces
from sweeps.sharing.joining import gpu_places, share_of
from sweeps.sharing.share import SharedSlots
from sweeps.space import Space
from sweeps.spec import SweepSpec
from sweeps.stop_signals import Deadline, StopSignals, signals_stop
from sweeps.trial.run_trial import run_trial
from tracking.errors import TrackingError
from tracking.mlflow_sync.sink import MlflowSink
from tracking.record.events import DriverStopped, EpochDone, Event, SweepEnded, SweepStarted
from tracking.record.files import write_json
from tracking.record.folder_lock import Hold, hold_folder, refuse_if_held
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.journal import Journal, read
from tracking.record.layout import SweepFolder
from tracking.tracker import Tracker

_LEAST_FREE_BYTES = 1 << 30


class SweepResult(Sequence[TrialHistory]):
    """The trials of a sweep, by number, and how this run ended."""

    def __init__(
        self, folder: SweepFolder, history: SweepHistory, stop_reason: str | None, signal_number: int | None,
        faults: Sequence[str], backlog: int, notes: Sequence[str] = (), was_finished: bool = False,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.history = history
        self.stop_reason = stop_reason
        self.signal_number = signal_number
        self.faults = tuple(faults)
        self.backlog = backlog
        self.notes = tuple(notes)
        self.was_finished = was_finished
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
        """0 success, or nothing was left to do; 1 a trial failed, or none is done; after a signal 128 plus its number:
        130 Ctrl-C, 143 SIGTERM, 129 SIGHUP."""
        if self.signal_number is not None:
            return 128 + self.signal_number
        if self.was_finished:
            return 0
        if self.faults:
            return 1
        return 0 if self.stop_reason or self.history.count("done") else 1


def run_sweep(
    space: Space | str,
    *,
    listeners: Sequence[Listener] = (),
    body: TrialBody = run_trial,
    tracker: Tracker | None = None,
    at_end: AtEnd | None = None,
    **options: Any,
) -> SweepResult:
    """Run a sweep, or continue one (`resume=True`), and return its trials.

    `space` is a Space, a built-in space's name or the path of a file that defines SPACE; `options` are the fields of
    `Options`; `tracker` and `at_end` are as in `run_plan`. Works in a notebook.
    Raises InputError, DataError or TrackingError for bad input, before anything is written.
    """
    plan = make_plan(space, Options.parse(options), find_hardware)
    return run_plan(plan, listeners=listeners, body=body, tracker=tracker, at_end=at_end)


def run_plan(
    plan: Plan,
    *,
    listeners: Sequence[Listener] = (),
    on_warning: Callable[[str], None] = warnings.warn,
    on_note: Callable[[str], None] = lambda _: None,
    on_preparing: Callable[[TrialHistory, str], None] | None = None,
    body: TrialBody = run_trial,
    runner: Runner | None = None,
    tracker: Tracker | None = None,
    at_end: AtEnd | None = None,
) -> SweepResult:
    """Run a plan to its end, or until a signal or the time budget stops it.

    `on_note` receives what the sweep waits for, `on_preparing` what a trial does between epochs if that takes long.
    `runner`, `tracker` and `at_end` override the plan's options: where trials run, where the results are sent, and
    what is drawn and published once the trials are over.
    """
    folder = plan.folder
    _check_space_left(folder)
    refuse_if_held(folder.root)
    with contextlib.ExitStack() as ready, contextlib.ExitStack() as held:
        places = gpu_places(plan)
        slots = ready.enter_context(share_of(plan, places, on_note, on_warning))
        start = partial(ready.enter_context, _runner(plan, places))
        runner = runner or (QueuedRunner(start) if plan.options.wait else start())
        hold = held.enter_context(hold_folder(folder.create().root))
        journal = held.enter_context(Journal.open(folder.journal))
        plan, history, study = _open_records(plan, journal, on_warning)
        if slots:
            slots.set_rank(plan.spec.priority, plan.spec.weight)
        tracker = tracker or MlflowSink(
            folder.journal, tracking_uri=plan.tracking_uri, out=plan.options.out, on_warning=on_warning
        )
        at_end = at_end or Closing(folder, on_warning)
        news = held.enter_context(_news(plan, history, on_warning))
        pictures = held.enter_context(TrialPictures(folder, plan.spec, on_warning))
        acts = Acts(folder, plan.space, plan.room, slots.set_rank if slots else None, plan.check)
        director = Director(
            folder,
            plan.spec,
            plan.space,
            history,
            journal,
            study,
            resolve=plan.resolve,
            time_budget_seconds=plan.options.time_budget_seconds,
            on_preparing=on_preparing,
            listeners=(*listeners, *_listeners(plan, history, news, tracker, on_warning), pictures),
            attendants=[acts, pictures.attend, *_attendants(plan, history, slots, hold)],
        )
        if not plan.tracking_uri.startswith("sqlite"):
            tracker.start()  # so that a server that does not answer is reported at once
        for trial in history.undrawn:
            pictures.add(trial)
        return _Wired(plan, director, journal, tracker, news, pictures, at_end).run(runner, body, ready)


@dataclass(frozen=True)
class _Wired:
    """A sweep, ready to run, with what it is connected to."""

    plan: Plan
    director: Director
    journal: Journal
    tracker: Tracker
    news: Notifier | None
    pictures: TrialPictures
    at_end: AtEnd

    def run(self, runner: Runner, body: TrialBody, ready: contextlib.ExitStack) -> SweepResult:
        """Run it to its end, or until it is stopped; `ready` holds the slots and the workers, and is closed."""
        director, history, notes = self.director, self.director.history, list[str]()
        was_finished, writable, backlog = history.finished is not None, True, 0

        with signals_stop(director) as signals:
            try:
                with ready:  # the workers have ended before pictures are drawn
                    if not director.exhausted:
                        runner.run(director, _in_lanes(self.plan, body))
            except TrackingError:
                writable = False
                raise
            finally:
                if writable:
                    notes += self._end(signals)
                self.tracker.start()
                self.tracker.wake()
                backlog = self.tracker.close(Deadline(60.0, 5.0, signals.any).left)
            if not signals.any() and not backlog:
                notes += self.at_end.publish_best(history, self.plan.tracking_uri, signals.any)
        return SweepResult(
            self.plan.folder, history, director.stop_reason, next(iter(signals.received), None),
            director.faults, backlog, notes, was_finished,
        )  # fmt: skip

    def _end(self, signals: StopSignals) -> list[str]:
        """Record the end and draw the sweep, in haste once a signal is received; notes for a person."""
        director, history = self.director, self.director.history
        with signals.withheld():
            director.leave()
            for drawn in self.pictures.rest(signals.any):
                director.record_drawn(drawn)
            _record_the_end(director, self.journal)
        if self.news:
            self.news.end(history)
        return self.at_end.draw(history, signals.any) if self.plan.spec.figures else []


def _listeners(
    plan: Plan, history: SweepHistory, news: Notifier | None, tracker: Tracker, on_warning: Callable[[str], None]
) -> Iterator[Listener]:
    if news:
        yield news
    yield KeptWeights(plan.folder, history, plan.spec.keep, on_warning)
    yield KeptStates(plan.folder, plan.spec.keep_states, on_warning)
    yield _tell(tracker)


def _attendants(plan: Plan, history: SweepHistory, slots: SharedSlots | None, hold: Hold) -> list[Attendant]:
    spec, found = plan.spec, list[Attendant]()
    if slots:
        found += [slots, lambda _: hold.wait_for(slots.waits_for)]
    if plan.budgets.is_any:
        found.append(plan.budgets)
    if spec.max_failed is not None:
        found.append(FailureLimit(spec.max_failed, history))
    return found


@contextlib.contextmanager
def _news(plan: Plan, history: SweepHistory, on_warning: Callable[[str], None]) -> Iterator[Notifier | None]:
    """The notifier; at the end it posts what is left."""
    if plan.options.notify is None:
        yield None
        return
    notifier = Notifier(plan.options.notify, plan.spec.name, history, on_warning)
    try:
        yield notifier
    finally:
        notifier.close()


def _tell(tracker: Tracker) -> Listener:
    """Notify the tracker of each event. It starts at the first epoch: importing MLflow would delay the first step."""

    def tell(event: Event, _: SweepHistory) -> None:
        if isinstance(event, EpochDone):
            tracker.start()
        tracker.wake()

    return tell


@contextlib.contextmanager
def _runner(plan: Plan, places: GpuPlaces | None) -> Iterator[Runner]:
    """The started runner: if Ray cannot start, this fails before anything is written."""
    if plan.spec.runner == "inline" or plan.is_finished():
        yield InlineRunner(places)
        return
    prepare_environment(joining=plan.options.address is not None)
    from sweeps.driver.ray_runner import ray_runner

    with ray_runner(plan.slots, plan.options.address, places) as runner:
        yield runner


def _in_lanes(plan: Plan, body: TrialBody) -> TrialBody:
    return body if plan.slots.lanes == 1 else Lanes(body, plan.slots.lanes, uuid.uuid4().hex[:12])


def _check_space_left(folder: SweepFolder) -> None:
    free = free_bytes(folder.root)
    if free < _LEAST_FREE_BYTES:
        raise InputError(
            f"{folder.root}: {free / 2**30:.2f} GiB free, a sweep needs at least {_LEAST_FREE_BYTES / 2**30:.0f} GiB; "
            "free some, or choose another --out"
        )


def _open_records(plan: Plan, journal: Journal, on_warning: Callable[[str], None]) -> tuple[Plan, SweepHistory, Any]:
    """The plan as acts have changed it since it was made, the sweep so far, and its study."""
    from sweeps.search.study import Study

    folder, spec = plan.folder, plan.spec
    events = list(read(folder.journal))
    if events and plan.recorded is None:
        raise InputError(f"{folder.root} was made by another driver in the meantime: choose another --name")
    if not events:
        opening = SweepStarted(
            sweep_id=uuid.uuid4().hex,
            name=spec.name,
            space=plan.space.name,
            tags=_tags(spec),
            spec=spec.model_dump(mode="json"),
            lessons=plan.start.lessons,
            offers=plan.start.offers,
        )
        journal.append(opening)
        events = [opening]
    history = SweepHistory.replay(events)
    spec = _with_acts(spec, plan.recorded, history)
    write_json(folder.spec, spec.model_dump(mode="json"))
    if history.unfinished or spec.to_start(history) or history.spec.get("prefer") != spec.prefer:
        gpus = str(plan.hardware) if spec.device == "cuda" else ""
        edit = plan.edit
        started = driver_started(
            spec,
            resumed=len(events) > 1,
            space_sha256=plan.space.code_sha256,
            redrawn=edit.redrawn if edit else None,
            gpus=gpus,
        )
        for sentence in (*differences(history), *(["\n  ".join(edit.notes)] if edit else [])):
            on_warning(sentence)
        journal.append(started)
        history.apply(started)
        events.append(started)
    return replace(plan, spec=spec), history, Study(folder.study_log, plan.space, spec.seed, events)


def _with_acts(spec: SweepSpec, before: SweepHistory | None, now: SweepHistory) -> SweepSpec:
    """The planned options, with what acts have changed since: the folder is not held while the workers start."""
    if before is None or now.spec == before.spec:
        return spec
    changed = {name: value for name, value in now.spec.items() if before.spec.get(name) != value}
    return SweepSpec.model_validate(spec.model_dump(mode="json") | changed)


def _record_the_end(director: Director, journal: Journal) -> None:
    history = director.history
    if history.finished:
        return
    over = not history.unfinished and not director.spec.to_start(history)
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
