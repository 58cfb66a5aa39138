"""Runs trials in Ray Tune's actors. This is the only file that imports ray.tune.

Tune places actors and reuses them. It makes no decisions and keeps no state: the searcher below returns the director's
tasks, the scheduler passes on reports and decisions, and each run is a new Tuner.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter
from ray import cloudpickle, tune
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from cluster.connect import joined_ray, local_ray
from sweeps.driver.director import Director
from sweeps.driver.runner import GRACE_SECONDS, TrialBody, placed, see_its_gpus, wait_for_task
from sweeps.errors import WorkerMustLeave
from sweeps.node.memory_guard import MemoryGuard, leave, reason_of_leaving
from sweeps.node.mps import join_mps
from sweeps.planning.resources import Slots
from sweeps.sharing.gpu_places import GpuPlaces
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd

T = TypeVar("T")

_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)
_ROUNDING = 1e-6
_HANG_FLOOR_SECONDS = 900.0
_HANG_FIRST_SECONDS = 6 * 3600.0
_LONGEST_CAUSE = 400


@contextmanager
def ray_runner(slots: Slots, address: str | None = None, places: GpuPlaces | None = None) -> Iterator[RayRunner]:
    """A runner on a Ray that is started here, or joined at `address`, while the block runs.

    A Ray that is started here gets the GPUs of `places` as named resources. By itself it would begin with the first
    GPU, as the Ray of every other sweep does. Without `places` Ray chooses the GPUs.

    Raises:
        ClusterError: Ray does not start, or does not answer at `address`.
    """
    _quieten()
    names = places.names if places else ()
    ray = joined_ray(address) if address else local_ray(slots.cpus, slots.gpus, map(_resource, names))
    with ray:
        yield RayRunner(slots, shares_ray=bool(address or names), places=places)


class RayRunner:
    """Runs as many trials at once as there are slots.

    `shares_ray` means that other sweeps use this Ray or its GPUs, so that idle workers must not keep resources.
    """

    def __init__(self, slots: Slots, *, shares_ray: bool = False, places: GpuPlaces | None = None) -> None:
        self._slots, self._shares_ray, self._places = slots, shares_ray, places
        self._mps = uuid.uuid4().hex[:12] if slots.mps else None

    def run(self, director: Director, body: TrialBody) -> None:
        """Run the sweep on Ray."""
        scratch = tempfile.mkdtemp(prefix="fer-sweeps-tune-")
        try:
            _let_actors_take_warm_workers()
            self._fit(director, body, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _fit(self, director: Director, body: TrialBody, scratch: str) -> None:
        """Run one Tuner, and a new one whenever it ended too early.

        It ends too early if Ray's memory monitor ended it, whichever trial was the cause. It also ends when other
        sweeps have all slots, because its workers have then left.
        """
        while True:
            calls = _Calls()
            try:
                self._tuner(director, calls, body, scratch).fit()
            except RuntimeError as error:
                if not isinstance(error.__cause__, OutOfMemoryError):
                    raise
                if self._places:  # this Tuner does not say any more which trials have left
                    self._places.release_all()
                director.all_workers_died("a machine ran out of memory, and Ray ended what ran")
                continue
            if calls.error:
                raise calls.error
            if not wait_for_task(director):
                return

    def _tuner(self, director: Director, calls: _Calls, body: TrialBody, scratch: str) -> tune.Tuner:
        cores = self._slots.cpus_per_trial

        def place(config: dict[str, Any]) -> tune.PlacementGroupFactory:
            task = _task(config)
            gpus = {_resource(name): min(1.0, task.gpu_share) for name in task.gpus} or {"GPU": task.gpu_share}
            return tune.PlacementGroupFactory([{"CPU": cores, **gpus}])

        actor, config = tune.with_resources(TrialActor, place), {"body": body, "mps": self._mps}
        scheduler = _Obedient(director, calls, self._shares_ray)
        return tune.Tuner(
            actor,
            tune_config=tune.TuneConfig(
                search_alg=_Tasks(director, calls, config, self._slots.gpus, self._shares_ray, self._places),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=self._slots.room,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                stop=_Stop(director, calls, scheduler),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
                log_to_file=False,
            ),
        )


class TrialActor(tune.Trainable):
    """A worker process that is reused: each `step` is one epoch, `reset_config` starts the next trial."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start the first trial."""
        self._messages: Iterator[Message] | None = None
        self._warning = join_mps(config["mps"]) if config["mps"] else None
        self._guard = MemoryGuard()
        self._patience_seconds = _HANG_FIRST_SECONDS
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next trial in the same process, which keeps its imports and mapped files."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run one epoch. A worker that hangs writes a stack trace and exits; its trial is retried."""
        assert self._messages is not None
        started = time.monotonic()
        faulthandler.dump_traceback_later(self._patience_seconds, exit=True, file=2)
        try:
            message = next(self._messages)
        except WorkerMustLeave as error:
            leave([self._task], str(error))  # at once: a clean end would wait for a GPU that no longer answers
        finally:
            faulthandler.cancel_dump_traceback_later()
        if isinstance(message, EpochReport) and not message.repeated:
            self._patience_seconds = max(_HANG_FLOOR_SECONDS, 10 * (time.monotonic() - started))
        warning, self._warning = self._warning, None
        return {"message": message.model_dump_json(), "done": isinstance(message, TrialEnd), "warning": warning}

    def cleanup(self) -> None:
        """Close the trial; its last checkpoint stays."""
        if self._messages is not None and hasattr(self._messages, "close"):
            self._messages.close()
        self._messages = None

    def _begin(self, config: dict[str, Any]) -> None:
        self.cleanup()
        self._patience_seconds = _HANG_FIRST_SECONDS
        self._task = _task(config)
        see_its_gpus(self._task)
        self._guard.watch([self._task])
        self._messages = config["body"](self._task)


class _Calls:
    """Calls the director from Tune's callbacks. The first error is kept, and ends the run.

    Tune would treat it as the error of a worker, or raise its traceback as the message of another error.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, call: Callable[[], T], otherwise: T) -> T:
        """The result of `call`; `otherwise` if it raises, or an earlier call did."""
        if self.error is None:
            try:
                return call()
            except Exception as error:
                self.error = error
        return otherwise


class _Tasks(Searcher):
    """Gives Tune the director's tasks, one whenever a slot and the task's GPU share are free.

    If shares differ, the next task may have to wait. It is kept here, so that no second task is proposed.
    """

    def __init__(
        self,
        director: Director,
        calls: _Calls,
        config: dict[str, Any],
        gpus: float,
        shares_ray: bool,
        places: GpuPlaces | None,
    ) -> None:
        super().__init__(metric=None, mode="max")
        self._shares_ray, self._places = shares_ray, places
        self._director, self._calls, self._config, self._gpus = director, calls, config, gpus
        self._held: Task | None = None
        self._tasks: dict[str, Task] = {}  # of running trials, by Tune's id

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self._held is None:
            self._held = self._calls(self._director.next_task, otherwise=None)
        elif self._director.stopping:  # the trial stays unfinished, for a resume
            return None if self._tasks else Searcher.FINISHED  # type: ignore[return-value]
        if self._held is None:
            return Searcher.FINISHED if self._over else None  # type: ignore[return-value]
        if sum(task.gpu_share for task in self._tasks.values()) + self._held.gpu_share > self._gpus + _ROUNDING:
            return None
        task = placed(self._held, self._places)
        if task is None:
            self._calls(self._director.attend, otherwise=None)  # what it waits for may be granted by now
            return None
        self._held, self._tasks[trial_id] = None, task
        return {"task": task.model_dump_json(), **self._config}

    @property
    def _over(self) -> bool:
        """Whether Tune is to end, which ends its last workers. On a shared Ray workers must not wait for a task."""
        nothing_now = self._director.exhausted or (self._shares_ray and not self._director.has_task)
        return self._calls.error is not None or (nothing_now and not self._director.busy)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free the trial's share; the scheduler passes on everything else."""
        task = self._tasks.pop(trial_id, None)
        if task and self._places:
            self._places.release(task.trial)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tuner() pickles it; the director must not be pickled


class _Obedient(FIFOScheduler):
    """Passes reports to the director and applies its decisions."""

    def __init__(self, director: Director, calls: _Calls, shares_ray: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._director, self._calls, self._shares_ray = director, calls, shares_ray
        self._trials: list[Trial] = []

    @property
    def has_running(self) -> bool:
        """Whether a trial has its worker; one may wait for it without end where the resources are gone."""
        return any(trial.status == Trial.RUNNING for trial in self._trials)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._trials.append(trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if self._take(trial, result):
            return str(TrialScheduler.CONTINUE)
        self._keep_or_release_worker(tune_controller)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._take(trial, result)  # Tune brings a result that says `done` here, and only here
        self._keep_or_release_worker(tune_controller)

    def _keep_or_release_worker(self, tune_controller: Any) -> None:
        """Have Tune end the worker of a trial that leaves, unless it is needed: an idle worker would keep its cores."""
        if self._shares_ray:
            self._calls(lambda: self._set_reuse(tune_controller), otherwise=None)

    def _set_reuse(self, tune_controller: Any) -> None:
        # Tune gives the controller itself to some callbacks and a wrapper to others.
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        controller._reuse_actors = self._director.has_task

    def _take(self, trial: Trial, result: dict[str, Any]) -> bool:
        if result["warning"]:
            warnings.warn(result["warning"], stacklevel=1)  # one place for all callers: Python shows it once
        message = _MESSAGE.validate_json(result["message"])
        return self._calls(lambda: self._director.take(_task(trial.config).trial, message), otherwise=False)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        task = _task(trial.config)
        reason = reason_of_leaving(task) or _cause(trial)
        self._calls(lambda: self._director.worker_died(task.trial, reason), otherwise=None)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Stop(Stopper):
    """Ends the run of a sweep that is stopping, once no trial has a worker.

    It ends in the middle of an epoch if the director failed, or if the grace after a signal is over.
    """

    def __init__(self, director: Director, calls: _Calls, scheduler: _Obedient) -> None:
        self._director, self._calls, self._scheduler = director, calls, scheduler
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self._calls(self._director.attend, otherwise=None)
        if self._calls.error:
            return True
        if not self._director.stopping:
            return False
        if not self._director.is_hurried:
            return not self._scheduler.has_running
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > GRACE_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _resource(gpu: str) -> str:
    """The name of a GPU as a Ray resource."""
    return f"gpu_{gpu}"


def _task(config: dict[str, Any]) -> Task:
    return Task.model_validate_json(config["task"])


def _cause(trial: Trial) -> str:
    """Why the worker ended, from the file that Tune has just written. Tune's own reader may read it too early."""
    path = Path(trial.pickled_error_file or "nowhere")
    if not path.is_file():
        return "unknown cause"
    error = cloudpickle.loads(path.read_bytes())
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    sentences = [line.strip() for line in str(error).splitlines() if not line.startswith("\t")]  # ids follow tabs
    return " ".join(sentences)[:_LONGEST_CAUSE]


def _let_actors_take_warm_workers() -> None:
    """Have Tune request no environment of its own for actors, so that Ray can use its prestarted processes.

    The workers already have the first variable from Ray's start; the second is for PyTorch Lightning.
    """
    os.environ.pop("RAY_CHDIR_TO_TRIAL_DIR", None)
    class_cache.DEFAULT_ENV_VARS.pop("PL_DISABLE_FORK", None)


def _quieten() -> None:
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the director reports a dead worker, in a line
    warnings.filterwarnings("ignore", module="ray")
