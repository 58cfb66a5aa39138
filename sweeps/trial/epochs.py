"""The epochs of a trial, trained in this process. Heavy imports are inside the functions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fer_data import AugmentConfig
from sweeps.config import TrialConfig
from sweeps.trial.messages import Task

if TYPE_CHECKING:
    from fer_data import Faces
    from fer_models.training.computed import Computing
    from fer_models.training.fit import Epoch
    from fer_models.training.state import TrainingState
    from fer_models.training.team import Team
    from fer_models.training.weights import Snapshot


class Trained(NamedTuple):
    """An epoch, the state after it, and the resources that it used."""

    epoch: Epoch
    snapshot: Snapshot
    usage: dict[str, float]


def trained_epochs(
    task: Task, cache: Path, state: TrainingState, micro_batches: int, is_cancelled: Callable[[], bool]
) -> Generator[Trained | Computing]:
    """Train from `state` on, which is modified, in this process.

    Raises:
        Cancelled: `is_cancelled` returned True.
    """
    from fer_common.captured import own_stream
    from fer_models.training.computed import Computing
    from fer_models.training.team import ALONE
    from fer_models.training.weights import take_snapshot
    from sweeps.trial.resource_usage import Usage

    usage = Usage(task.device)
    with own_stream(task.device):
        for epoch in own_epochs(task, cache, state, micro_batches, is_cancelled, ALONE):
            if isinstance(epoch, Computing):
                yield epoch
            else:
                yield Trained(epoch, take_snapshot(state), usage.since_last())


def own_epochs(
    task: Task,
    cache: Path,
    state: TrainingState,
    micro_batches: int,
    is_cancelled: Callable[[], bool],
    team: Team,
) -> Iterator[Epoch | Computing]:
    """Yield each epoch, trained in this process as one member of the team, and the progress of preparations."""
    from fer_common.captured import Captured, CudaGraph
    from fer_data import open_cached
    from fer_data.augmentation.batches import batches_per_epoch, train_batches
    from fer_data.cache.preprocess_cache import preprocessed
    from fer_models.parts.staged import StagedNet
    from fer_models.training.feature_cache import fit_on_features
    from fer_models.training.fit import fit
    from sweeps.trial.build_net import fit_arguments
    from sweeps.trial.teachers import taught_labels

    config, faces = task.config, open_cached(preprocessed(cache, task.config.preprocess))
    size, augment, classes = config.recipe.batch_size, config.augment, len(faces.classes)
    # Not in a team: its steps stay eager, and its members compute on the default stream, which cannot be captured.
    graph = CudaGraph if task.cuda_graphs and team.size == 1 else None
    how = {
        **fit_arguments(config, faces),
        "epochs": task.epochs,
        "seed": task.seed,
        "device": task.device,
        "micro_batches": micro_batches,
        "is_cancelled": is_cancelled,
        "graph": graph,
    }
    val = (faces.val.images, faces.val.labels)
    if team.size == 1 and isinstance(state.net, StagedNet) and _features_can_be_kept(config, faces):
        train, features = (faces.train.images, faces.train.labels), cache.parent / "features"
        yield from fit_on_features(state, train, val, folder=features, fingerprint=faces.fingerprint, **how)
        return
    taught = yield from taught_labels(task, cache)
    captured = Captured(graph, shapes=2) if graph else None  # a batch is mixed either by mixup or by cutmix
    yield from fit(
        state,
        lambda generator: train_batches(
            faces.train, size, augment, generator, task.device, classes=classes, taught=taught, captured=captured
        ),
        val,
        iterations_per_epoch=batches_per_epoch(faces.train, size, augment),
        team=team,
        **how,
    )


def _features_can_be_kept(config: TrialConfig, faces: Faces) -> bool:
    """Whether the frozen stages' features are the same in every epoch, so that they can be computed once."""
    always_alike = config.augment == AugmentConfig() and config.recipe.views == "plain"
    by_labels = faces.train.soft_labels is None and not config.recipe.is_distilled
    whole = by_labels and getattr(config.net, "auxiliary_weight", 0) == 0
    return bool(config.transfer.freeze) and always_alike and whole
