"""One trial: faces → net → epochs → reports. Independent of Ray and MLflow.

Heavy imports are inside the functions, so that a driver, which only passes `run_trial` on, does not import torch.
"""

from __future__ import annotations

import copy
import errno
import json
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_data import DataError, DataOptions, open_cached, prepare
from fer_data.cache.cache_folder import fingerprint_in
from fer_models.training.schedule import lasting_epochs
from sweeps.config import TrialConfig
from sweeps.errors import WorkerMustLeave
from sweeps.trial.messages import PARAMETERS, EpochReport, Message, Preparing, Task, TrialEnd
from sweeps.trial.results import keep_answers, leak_free_accuracy, score
from tracking.errors import TrackingError
from tracking.record.best_epoch import best_epoch
from tracking.record.files import write_bytes, write_json
from tracking.record.layout import TrialFolder
from tracking.record.parameters import count_saved
from tracking.record.predictions import read_predictions
from tracking.record.training_states import keep_state

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fer_data import Faces
    from fer_models.training.state import TrainingState
    from fer_models.training.weights import Snapshot
    from sweeps.trial.gpu.memory import GpuMemory


def run_trial(task: Task) -> Iterator[Message]:
    """Train, write checkpoints and report, until all epochs are done, the driver's verdict arrives, or it diverges.

    Yields an EpochReport after each epoch and, last, a TrialEnd. Epochs of an earlier attempt are reported again; the
    driver drops these reports. A fault of the trial itself is a TrialEnd, with the traceback in `error.txt`. An
    OSError, other than a full disk, is raised, also if it caused another error, because a retry may succeed. A GPU
    error is raised as WorkerMustLeave.
    """
    from fer_models.errors import Cancelled, Diverged
    from sweeps.trial.gpu.faults import is_broken_gpu, is_out_of_memory

    folder = TrialFolder(Path(task.folder))
    try:
        folder.create()
        claim(task)
        scores, note = yield from _train_in_memory(task, folder)
        undrawn = task.figures and bool(scores)
        yield TrialEnd(attempt=task.attempt, state="ended", scores=scores, note=note, undrawn=undrawn)
    except DataError as error:
        # The faces are gone or damaged, which would affect all trials of the sweep.
        yield TrialEnd(attempt=task.attempt, state="blocked", reason=str(error))
    except Diverged as error:
        _drop_state(folder)
        yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason=str(error))
    except (Cancelled, WorkerMustLeave):
        raise
    except Exception as error:
        cause = _os_error(error)
        if cause and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            yield TrialEnd(attempt=task.attempt, state="blocked", reason=str(error))
            return
        if cause:
            raise
        log = folder.root / "error.txt"
        write_bytes(log, traceback.format_exc().encode())
        reason = f"{type(error).__name__}: {error} (traceback in {log})"
        if is_broken_gpu(error) and not is_out_of_memory(error):
            raise WorkerMustLeave(reason) from error
        yield TrialEnd(attempt=task.attempt, state="failed", reason=reason)


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError that `error` is or was caused by."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error


def claim(task: Task) -> None:
    """Make this attempt the owner of the folder. `still_owned` is then False for earlier attempts."""
    write_json(_attempt_file(task), {"attempt": task.attempt})


def still_owned(task: Task) -> bool:
    """Whether no later attempt has taken the trial over."""
    return int(json.loads(_attempt_file(task).read_text(encoding="utf-8"))["attempt"]) <= task.attempt


def _attempt_file(task: Task) -> Path:
    return Path(task.folder) / ".attempt.json"


def _train_in_memory(task: Task, folder: TrialFolder) -> Generator[Message, None, tuple[dict[str, float], str | None]]:
    """`_train`, repeated from the last checkpoint if GPU memory runs out. Also returns a note about it."""
    from sweeps.trial.gpu.faults import is_out_of_memory
    from sweeps.trial.gpu.memory import GpuMemory

    with GpuMemory(task) as memory:
        while True:
            try:
                scores = yield from _train(task, folder, memory)
                return scores, memory.note
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                memory.ran_out(error)
            # Here, since the error's traceback keeps the tensors of the failed epoch.
            memory.make_room()


def _train(task: Task, folder: TrialFolder, memory: GpuMemory) -> Generator[Message, None, dict[str, float]]:
    """Yield one EpochReport per epoch and return the scores at the best one."""
    import torch

    from fer_data.cache.preprocess_cache import preprocessed
    from fer_models.training.computed import Computing
    from fer_models.training.weights import take_snapshot
    from sweeps.trial.costs import costs
    from sweeps.trial.epochs import Trained, trained_epochs
    from sweeps.trial.one_ahead import one_ahead
    from sweeps.trial.workers import epochs_of_workers

    torch.set_num_threads(task.threads)
    config, cache = task.config, cache_here(task.faces, task.data)
    faces = open_cached(preprocessed(cache, config.preprocess))
    state, reports = _begin(task, folder, faces)
    memory.last_epoch = state.epoch
    own_costs = costs(task, state.net, faces, reports.values())
    lasting = lasting_epochs(config.recipe, config.transfer, task.epochs)
    if 0 < state.epoch == lasting:  # an attempt before may have been killed before it kept that state
        _checkpoint(folder, take_snapshot(state), reports)
        keep_state(folder, folder.last, folder.lasting)
    # Not the epochs that the driver has: at a report without any training it might pause the trial again.
    known = {done.epoch for done in task.recorded}
    yield from (
        report.model_copy(update={"repeated": True}) for report in reports.values() if report.epoch not in known
    )
    # Files are written here while the next epoch is trained in a thread. A report follows its files.
    train: Callable[..., Generator[Trained | Computing]] = trained_epochs if task.workers == 1 else epochs_of_workers
    parts = memory.micro_batches
    with one_ahead(lambda is_cancelled: train(task, cache, state, parts, is_cancelled), task.threads) as epochs:
        # The driver's verdict is in the trial's folder before it asks for the next epoch.
        while not folder.verdict.exists() and (coming := next(epochs, None)) is not None:
            if isinstance(coming, Computing):
                yield Preparing(attempt=task.attempt, what=str(coming))
                continue
            epoch, snapshot, usage = coming
            report = EpochReport(
                attempt=task.attempt,
                epoch=epoch.number,
                metrics=epoch.metrics()
                | own_costs
                | leak_free_accuracy(epoch.val_probabilities, faces)
                | usage
                | memory.metrics(),
                iterations=epoch.iterations,
            )
            if not still_owned(task):
                return {}
            reports.setdefault(epoch.number, report)  # trained again, it may differ from what is recorded
            _checkpoint(folder, snapshot, reports)
            memory.last_epoch = epoch.number
            if _best_epoch(config, reports) == epoch.number and read_predictions(folder, epoch.number) is None:
                keep_answers(folder, epoch.val_probabilities, epoch.number, faces)
                _keep_weights(folder, snapshot, faces)
            if epoch.number == lasting:
                keep_state(folder, folder.last, folder.lasting)
            yield reports[epoch.number]
    return _finish(task, folder, faces, reports)


def cache_here(faces: str, data: DataOptions) -> Path:
    """The cache folder of the faces. A machine of a cluster that lacks it makes it once, from the source."""
    folder = Path(faces)
    if folder.is_dir():
        return folder
    made = prepare(data)
    here, sweeps = fingerprint_in(made.name), fingerprint_in(folder.name)
    if here != sweeps:
        raise DataError(
            f"{data.source or 'synthetic faces'}: has fingerprint {here} on this machine, the sweep's is "
            f"{sweeps}; put the same file there, or FER_CACHE on storage that all machines see"
        )
    return made


def _begin(task: Task, folder: TrialFolder, faces: Faces) -> tuple[TrainingState, dict[int, EpochReport]]:
    """The state after the last epoch on disk, or the initial one, and all known reports.

    The best epoch's predictions and weights are written after the checkpoint, in this order. A checkpoint without them
    is incomplete: training restarts from the checkpoint before it, or from the start. A trial that began from another
    trial's state has no such start; its net makes the predictions of the checkpoint's epoch again.

    Raises:
        TrackingError: a trial that began from another trial's state has no state to continue from.
    """
    from fer_models import ModelError
    from fer_models.training.state import Plateau, new_state
    from fer_models.training.transfer import load_pretrained
    from fer_models.training.weights import load_state, take_snapshot
    from sweeps.trial.build_net import new_net

    config = task.config
    recorded = {done.epoch: EpochReport(attempt=task.attempt, **done.results()) for done in task.recorded}
    for checkpoint in (folder.last, folder.previous):
        if checkpoint.exists():
            state = new_state(new_net(config, faces, task.seed), config.recipe, config.transfer)
            try:
                past: dict[str, Any] = load_state(state, checkpoint)
            except ModelError:
                continue  # truncated or damaged
            if state.epoch == task.plateau_from:
                state.plateau = Plateau()
            own = [EpochReport(**{**report, "attempt": task.attempt}) for report in past["reports"]]
            # A trial that lost its state trains its epochs again; its checkpoints then have reports of later epochs,
            # which a fork of it trains itself.
            reports = {report.epoch: report for report in own if report.epoch <= state.epoch} | recorded
            best = _best_epoch(config, reports)
            if best is None:
                continue
            if read_predictions(folder, best) is None:
                if not task.began_from_state or best != state.epoch:
                    continue
                keep_answers(folder, _predictions(task, state, faces), best, faces)
            if best == state.epoch:
                _keep_weights(folder, take_snapshot(state), faces)
            return state, reports
    if task.began_from_state:
        raise TrackingError(f"{folder.last}: absent, damaged, or without the predictions of its best epoch; the trial "
                            "began from another trial's state, so it cannot be trained from its start")  # fmt: skip
    net = new_net(config, faces, task.seed)
    load_pretrained(net, config.net, config.transfer)
    return new_state(net, config.recipe, config.transfer), recorded


def _predictions(task: Task, state: TrainingState, faces: Faces) -> NDArray[np.float32]:
    """What the net of a state predicts on the validation split, as after its epoch."""
    from fer_models.training.evaluate import predict
    from sweeps.trial.build_net import fit_arguments

    how = fit_arguments(task.config, faces)
    return predict(
        copy.deepcopy(state.judged_net),  # the state stays on the CPU
        faces.val.images,
        device=task.device if task.workers == 1 else "cpu",  # its workers have its GPUs
        precision=how["precision"],
        memory_format=how["memory_format"],
        views=task.config.recipe.views,
    )


def _best_epoch(config: TrialConfig, reports: dict[int, EpochReport]) -> int | None:
    best = best_epoch(reports.values(), config.keep_best)
    return best.epoch if best else None


def _checkpoint(folder: TrialFolder, snapshot: Snapshot, reports: dict[int, EpochReport]) -> None:
    from fer_models.training.weights import save_state

    if folder.last.exists():
        folder.last.replace(folder.previous)
    save_state(snapshot, folder.last, {"reports": [report.model_dump(mode="json") for report in reports.values()]})


def _keep_weights(folder: TrialFolder, snapshot: Snapshot, faces: Faces) -> None:
    about = {"epoch": str(snapshot.epoch), "dataset": faces.name, "dataset.fingerprint": faces.fingerprint}
    snapshot.save_judged_net(folder.best, about)


def _finish(task: Task, folder: TrialFolder, faces: Faces, reports: dict[int, EpochReport]) -> dict[str, float]:
    """Score the best epoch, and delete what only a running trial needs."""
    scores: dict[str, float] = {}
    best = _best_epoch(task.config, reports)
    if best is not None and read_predictions(folder, best):
        scores = score(folder, faces, best)
        if count := count_saved(folder.best):
            scores[PARAMETERS] = float(count)
    folder.previous.unlink(missing_ok=True)
    if folder.verdict.exists():
        _drop_state(folder)
    return scores


def _drop_state(folder: TrialFolder) -> None:
    """Delete the state of a trial that was pruned or diverged: it never continues, and the state is large."""
    folder.last.unlink(missing_ok=True)
    folder.previous.unlink(missing_ok=True)
