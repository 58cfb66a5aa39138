"""Sends the journal to MLflow, exactly once.

This relies on two facts. Each run has a unique tag, which is looked up before the run is created. And MLflow stores a
point with equal key, time, step and value only once, so sending the journal again adds nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_common.errors import without_password
from tracking.errors import TrackingError
from tracking.flatten import flatten
from tracking.metrics.chosen import choice_of
from tracking.metrics.front import front_volume, highest_costs, pareto_front, scored_trials
from tracking.metrics.groups import confirmation_of
from tracking.metrics.winner import winner_of
from tracking.mlflow_sync.access import describe, ping, set_client_environment
from tracking.mlflow_sync.default_store import default_path, default_uri, open_default_store
from tracking.mlflow_sync.experiment import experiment_id
from tracking.mlflow_sync.follower import Follower
from tracking.mlflow_sync.moved_artifacts import ARTIFACTS, follow_artifacts
from tracking.mlflow_sync.progress import PARENT, GroupRuns, Point, group_run
from tracking.mlflow_sync.run_records import (
    DRAWN_TAG,
    KEY_TAG,
    REASON_TAG,
    STATE_TAG,
    WEIGHTS_TAG,
    EventGrouper,
    RunWork,
    ending_status,
    ending_tags,
    first_tags,
    last_events,
    number_of,
    run_key,
    run_name,
    run_title,
)
from tracking.mlflow_sync.upkeep import how_to_restore, search_runs
from tracking.mlflow_sync.uri import BESIDE_THE_SWEEPS
from tracking.mlflow_sync.weights import bring_up_to_date, outdated
from tracking.record.events import DriverStarted, Event, SweepEnded, SweepStarted
from tracking.record.folder_lock import FolderHeldError, hold_folder
from tracking.record.history import SweepHistory
from tracking.record.journal import read
from tracking.record.layout import JOURNAL_NAME, SweepFolder
from tracking.record.objectives import objectives_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_POINTS_A_BATCH = 1000  # MLflow's own limits
_PARAMS_A_BATCH = 100
_FIRST_TIMEOUT_SECONDS = 4
_LONGEST_TIMEOUT_SECONDS = 64
_PARENT_TAG = "mlflow.parentRunId"
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}


class MlflowSink:
    """Keeps MLflow equal to the journal, in a separate thread. The caller must hold the lock of the sweep's folder."""

    def __init__(self, journal: Path, *, tracking_uri: str, out: Path, on_warning: Callable[[str], None]) -> None:
        self._folder = journal.parent
        self._receiver = _MlflowReceiver(tracking_uri, out, on_warning)
        self._follower = Follower(journal, self._receiver, on_warning)

    def start(self) -> None:
        """Start to follow the journal, once; it must have its first line."""
        self._follower.start()

    def wake(self) -> None:
        """Signal that the journal has grown; returns at once."""
        self._follower.wake()

    def close(self, seconds_left: Callable[[], float]) -> int:
        """Send what is left and stop; return how many events were unsent when time was up, or when MLflow is down."""
        return self._follower.close(seconds_left)

    def sync(self) -> int:
        """Send the whole journal now, and hold the lock of the sweep's folder meanwhile.

        Returns:
            The number of the sweep's runs that are skipped because they were deleted in MLflow.

        Raises:
            FolderHeldError: the sweep has a driver, which sends the journal itself.
            TrackingError: MLflow did not accept all of it, or the journal is corrupt.
        """
        with hold_folder(self._folder):
            self._receiver.follows = False
            self._follower.run_to_end()
        return self._receiver.deleted


class _MlflowReceiver:
    """Receives one journal's events. What it knows of MLflow's content is in a `_Session`."""

    def __init__(
        self, uri: str, out: Path, on_warning: Callable[[str], None], client: "MlflowClient | None" = None
    ) -> None:
        self._uri = uri
        self._out = out.resolve()
        self._on_warning = on_warning
        self._client = client
        self._timeout_seconds = _FIRST_TIMEOUT_SECONDS
        self._all_acknowledged = True
        self.deleted = 0
        self.follows = True
        """Whether later events of the journal will come; set it before `connect`."""
        self._to_replay: list[Path] = []
        self._refusals: Counter[int] = Counter()

    def connect(self, journal: Path, end: int) -> None:
        timeout_seconds = self._timeout_seconds
        # A slow answer looks like none, so each attempt waits longer, until something is accepted.
        self._timeout_seconds = min(2 * timeout_seconds, _LONGEST_TIMEOUT_SECONDS)
        set_client_environment(timeout_seconds)
        ping(self._uri, timeout_seconds - 1)
        self._client = self._client or self._open()
        artifacts = self._out / ARTIFACTS if self._uri.startswith("sqlite") else None
        self._session = _Session(self._client, journal, end, artifacts, self.follows)
        self._warn_of_deleted()
        while self._to_replay:
            if self._to_replay[0].resolve() != journal.resolve():
                self._replay(self._client, self._to_replay[0])
            self._to_replay.pop(0)

    def send(self, events: Iterable[Event]) -> None:
        works = self._session.grouper.group(events)
        # The sweep's own run is made first, since the others belong to it, and ends last, when all are sent.
        parent = works.pop(PARENT, None)
        if parent is not None:
            self._tell(PARENT, RunWork(started=parent.started, driver=parent.driver))
            parent.started = None
            works[PARENT] = parent
        for number, work in works.items():
            self._tell(number, work)
        self._timeout_seconds = _FIRST_TIMEOUT_SECONDS

    def all_acknowledged(self) -> bool:
        return self._all_acknowledged

    def describe(self, error: Exception) -> str:
        return f"MLflow at {without_password(self._uri)} does not accept results ({describe(error, self._uri)})"

    def _open(self) -> "MlflowClient":
        from mlflow import MlflowClient, __version__

        if self._uri != default_uri(self._out):
            return MlflowClient(self._uri)
        path = default_path(self._out)
        opened = open_default_store(path, lambda uri: MlflowClient(uri).search_experiments(max_results=1), __version__)
        if note := follow_artifacts(path):
            self._on_warning(note)
        if opened.set_aside is not None:
            self._on_warning(
                f"MLflow's store {path} {opened.fault}: it is now {opened.set_aside}, "
                f"and a new one is created from the journals in {self._out}"
            )
            self._to_replay = sorted(self._out.glob(f"*/{JOURNAL_NAME}"))
        return MlflowClient(opened.uri)

    def _warn_of_deleted(self) -> None:
        session, before = self._session, self.deleted
        self.deleted = len(session.deleted)
        if self.deleted > before:
            sweep, (number, run_id) = session.sweep.name, min(session.deleted.items())
            self._on_warning(
                f"{sweep}: {self.deleted} of its runs were deleted in MLflow, as {run_title(number)}; they are "
                f"not sent until they are restored: {how_to_restore(self._uri, run_id)}"
            )

    def _replay(self, client: "MlflowClient", journal: Path) -> None:
        receiver = _MlflowReceiver(self._uri, self._out, self._on_warning, client)
        receiver.follows = False
        try:
            if _recorded_place(journal) in (None, BESIDE_THE_SWEEPS):
                with hold_folder(journal.parent):
                    Follower(journal, receiver, self._on_warning).run_to_end()
        except FolderHeldError:
            return  # its driver's own sink sends it
        except TrackingError as error:
            self._on_warning(str(error))

    def _tell(self, number: int, work: RunWork) -> None:
        """Send to MLflow. What it refuses twice is skipped with a warning."""
        from mlflow.exceptions import MlflowException

        if self._refusals[number] >= 2:
            return
        try:
            self._session.tell(number, work)
        except MlflowException as error:
            self._refusals[number] += error.error_code in _REFUSALS
            if self._refusals[number] < 2:
                raise
            self._on_warning(
                f"{self.describe(error)}: {run_title(number)} of {self._session.sweep.name} is left out there"
            )
        finally:
            self._all_acknowledged &= self._session.all_acknowledged


class _Session:
    """What MLflow had of one sweep when it was looked up. It is dropped after the first error."""

    def __init__(self, client: "MlflowClient", journal: Path, end: int, artifacts: Path | None, follows: bool) -> None:
        first = next(read(journal, end), None)
        if not isinstance(first, SweepStarted):
            raise TrackingError(f"the journal {journal} is empty: the sweep never started")
        self.sweep = first
        self.all_acknowledged = True
        self._client = client
        self._follows = follows
        self._folder = SweepFolder(journal.parent)
        self._experiment = experiment_id(client, first, artifacts)
        found = self._find_runs()
        self._run_ids = {number: str(run.info.run_id) for number, run in found.items()}
        self.deleted = {
            number: str(run.info.run_id) for number, run in found.items() if run.info.lifecycle_stage == "deleted"
        }
        self._parents = {number: run.data.tags.get(_PARENT_TAG) for number, run in found.items()}
        self._ended = {number: run.info.end_time or 0 for number, run in found.items() if run.info.status != "RUNNING"}
        self._params: dict[int, dict[str, str]] = {}
        self._weights = {
            number: run.data.tags[WEIGHTS_TAG] for number, run in found.items() if WEIGHTS_TAG in run.data.tags
        }
        metrics = found[PARENT].data.metrics if PARENT in found else {}
        self._best_metrics = {name for name in metrics if name.startswith("best_")}
        groups = GroupRuns()
        last = last_events(read(journal, end), groups)
        settled = {
            number: one
            for number, one in last.items()
            if number in self._ended
            and (number == PARENT or self._parents[number] == self._run_ids.get(groups.above(number)))
            and found[number].info.end_time == one.end.time_ms
            and (one.drawn is None or found[number].data.tags.get(DRAWN_TAG) == str(one.drawn))
            and self._has_files(number)
        }
        # The sweep's end also gives the other runs their weights and tags. Those that were deleted then lack them.
        living = [number for number, _ in self._living_trials()]
        if last.keys() - settled.keys() - self.deleted.keys() or any(outdated(self._folder, living, self._weights)):
            settled.pop(PARENT, None)
        self.grouper = EventGrouper(settled)

    def tell(self, number: int, work: RunWork) -> None:
        """Update one run; repeating this changes nothing. A run that a person deleted stays deleted."""
        if number in self.deleted:
            return
        run_id = self._run_ids.get(number) or self._create(number, work)
        self._put_below(number, run_id)
        if isinstance(work.started, SweepStarted):
            self._client.log_dict(run_id, work.started.spec, "spec.json")
        elif work.started is not None:
            self._params[number] = flatten(work.started.settings)
        # A run that `close_runs` ended has an end after the start of its last worker, and is not reopened by a replay.
        if number in self._ended and work.resumed_ms > self._ended[number]:
            self._log(run_id, tags={STATE_TAG: "running", REASON_TAG: ""})
            self._client.update_run(run_id, status="RUNNING")
            del self._ended[number]
        tags = {"attempt": str(work.attempt)} if work.attempt else {}
        if work.end is not None:
            tags |= ending_tags(work.end)
        # Parameters wait for the first points, for one request less per run, if those will come.
        if work.points or work.end is not None or tags or (number in self._params and not self._follows):
            self._log(run_id, work.points, self._params.pop(number, {}), tags)
        if work.end is not None:
            self._log_files(number, run_id)
            if isinstance(work.end, SweepEnded):
                self._log_result(run_id, work.end)
            self._client.set_terminated(run_id, ending_status(work.end), work.end.time_ms)
            self._ended[number] = work.end.time_ms
        if work.drawn is not None:
            if work.end is None:
                self._log_files(number, run_id, "[!.]*.png")
            self._log(run_id, tags={DRAWN_TAG: str(work.drawn)})

    def _log_result(self, run_id: str, end: SweepEnded) -> None:
        """Record what a sweep resulted in: winner, expected accuracy, Pareto front and weights."""
        history = SweepHistory.load(self._folder.journal)
        if history.finished != end:  # it was extended since: its next end has the result
            return
        self._client.log_dict(run_id, history.spec, "spec.json")
        values = self._expectation(history) | _front_values(history)
        points = [Point(name, value, end.time_ms, 0) for name, value in values.items()]
        self._log(run_id, points, tags=self._winner_tags(history))
        self._tag_front(history)
        bring_up_to_date(self._client, self._folder, dict(self._living_trials()), self._weights)

    def _tag_front(self, history: SweepHistory) -> None:
        """Tag the runs of the trials and groups on the Pareto front, and remove the tag from the others."""
        if len(objectives_of(history.spec)) == 1:
            return
        front = {one.trial.number for one in pareto_front(history)}
        front |= {group_run(first) for first in front}
        for number, run_id in self._run_ids.items():
            if number != PARENT and number not in self.deleted:
                self._log(run_id, tags={"pareto": "true" if number in front else "false"})

    def _living_trials(self) -> Iterator[tuple[int, str]]:
        """The runs of trials that nobody deleted."""
        for number, run_id in self._run_ids.items():
            if number > PARENT and number not in self.deleted:
                yield number, run_id

    def _winner_tags(self, history: SweepHistory) -> dict[str, str]:
        """The sweep's winner, and the trials within noise of the best, as tags of the sweep's run."""
        winner = winner_of(self._folder, history)
        if winner is None:
            return {}
        tags = {"winner": str(winner.trial), "within_noise_of_best": ", ".join(map(str, winner.ties))}
        return tags | ({"prefer": winner.prefer} if winner.prefer else {})

    def _expectation(self, history: SweepHistory) -> dict[str, float]:
        """The best trial's expected accuracy on new faces, as metrics of the sweep's run."""
        choice, confirmation = choice_of(self._folder, history), confirmation_of(history)
        if choice is None:
            return {}
        values = {
            "best_val_accuracy": choice.accuracy,
            "best_expected_accuracy": choice.expected.value,
            "best_expected_accuracy_low": choice.expected.low,
            "best_expected_accuracy_high": choice.expected.high,
        }
        if confirmation:
            values["best_confirmed_accuracy"] = confirmation.confirmed.value
            values["best_confirmed_accuracy_low"] = confirmation.confirmed.low
            values["best_confirmed_accuracy_high"] = confirmation.confirmed.high
            values["best_accuracy_at_first"] = confirmation.best_at_first
        if choice.lead:
            values["best_expected_lead_over_baseline"] = choice.lead.value
        # MLflow shows the last value of a metric, also if this end of the sweep has none.
        return dict.fromkeys(self._best_metrics - values.keys(), math.nan) | values

    def _create(self, number: int, work: RunWork) -> str:
        if work.started is None:
            raise TrackingError(f"the journal in {self._folder.root} has an event of trial {number} before its start")
        tags = first_tags(number, self.sweep, work.started, work.driver)
        if number != PARENT:
            tags[_PARENT_TAG] = self._parents[number] = self._parent_of(number)
        # Until the answer arrives, the run may or may not exist.
        self.all_acknowledged = False
        run = self._client.create_run(self._experiment, work.started.time_ms, tags, run_name(number, work.started))
        self.all_acknowledged = True
        self._run_ids[number] = str(run.info.run_id)
        return self._run_ids[number]

    def _parent_of(self, number: int) -> str:
        """The parent of a run: the group's run, or the sweep's if there is no group or MLflow refused its run."""
        return self._run_ids.get(self.grouper.groups.above(number), self._run_ids[PARENT])

    def _put_below(self, number: int, run_id: str) -> None:
        """Make a run the child of its group's run. Earlier versions made members children of the group's first run."""
        if number != PARENT and self._parents.get(number) != (parent := self._parent_of(number)):
            self._client.set_tag(run_id, _PARENT_TAG, parent)
            self._parents[number] = parent

    def _log(
        self,
        run_id: str,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(point.key, point.value, point.time_ms, point.step) for point in points]
        given = [Param(key, value) for key, value in (params or {}).items()]
        run_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
        for begin in range(_PARAMS_A_BATCH, len(given), _PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=given[begin : begin + _PARAMS_A_BATCH])
        for begin in range(_POINTS_A_BATCH, len(metrics), _POINTS_A_BATCH):
            self._client.log_batch(run_id, metrics=metrics[begin : begin + _POINTS_A_BATCH])
        self._client.log_batch(run_id, metrics[:_POINTS_A_BATCH], given[:_PARAMS_A_BATCH], run_tags)

    def _log_files(self, number: int, run_id: str, names: str = "[!.]*") -> None:
        for path in self._files(number, names):
            self._client.log_artifact(run_id, str(path))

    def _files(self, number: int, names: str = "[!.]*") -> list[Path]:
        if number < PARENT:
            return []
        folder = self._folder.trial(number)
        left_out = {folder.best, folder.last, folder.previous, folder.verdict}
        root = self._folder.figures if number == PARENT else folder.root
        return [path for path in sorted(root.glob(names)) if path.is_file() and path not in left_out]

    def _has_files(self, number: int) -> bool:
        """Whether an ended run has its files. Those of the sweep's run are written after its end, possibly several
        times.
        """
        files = self._files(number) if number == PARENT else []
        if not files:
            return True
        there = {one.path: one.file_size for one in self._client.list_artifacts(self._run_ids[number])}
        return all(there.get(path.name) == path.stat().st_size for path in files)

    def _find_runs(self) -> dict[int, "Run"]:
        """The sweep's runs by number. If a lost response caused two runs for one trial, one of them is deleted."""
        found: dict[int, Run] = {}
        query = f"tags.`{KEY_TAG}` LIKE '{run_key(self.sweep, PARENT)}%'"
        runs = search_runs(self._client, [self._experiment], query, with_deleted=True)
        for run in sorted(runs, key=_worth_keeping):
            number = number_of(run.data.tags[KEY_TAG])
            if found.setdefault(number, run) is not run and run.info.lifecycle_stage == "active":
                self._client.delete_run(run.info.run_id)
        return found


def _front_values(history: SweepHistory) -> dict[str, float]:
    """For several objectives, the size of the front and its hypervolume, as metrics of the sweep's run."""
    scored = scored_trials(history)
    front = [one for one in scored if one.is_on_front]
    if not front:
        return {}
    return {"pareto/size": float(len(front)), "pareto/hypervolume": front_volume(front, highest_costs(scored))}


def _recorded_place(journal: Path) -> str | None:
    """The MLflow that the sweep's last driver used."""
    places = [event.spec.get("tracking_uri") for event in read(journal) if isinstance(event, DriverStarted)]
    return places[-1] if places else None


def _worth_keeping(run: "Run") -> tuple[bool, bool, str]:
    return (run.info.lifecycle_stage == "deleted", run.info.end_time is None, str(run.info.run_id))
