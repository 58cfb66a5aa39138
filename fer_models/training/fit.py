"""Training, one epoch at a time.

Legend: n images of a batch or split, h and w height and width; an iteration is one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_common.captured import Graph
from fer_common.own_draws import drawing_from
from fer_models.configs.recipe import MemoryFormat, Precision, Recipe
from fer_models.configs.transfer_config import Transfer
from fer_models.errors import Cancelled, Diverged, ModelError
from fer_models.parts.stages import freeze_stages
from fer_models.training.evaluate import EVALUATION_BATCH, Pixels, predict_logits
from fer_models.training.losses import count_right, cross_entropy
from fer_models.training.schedule import phases
from fer_models.training.state import TrainingState, place
from fer_models.training.team import ALONE, Team
from fer_models.training.trainer import Trained, Trainer

Batches = Callable[[torch.Generator], Iterator[tuple[Tensor, Tensor]]]
"""One epoch of (x [n, 1, h, w] float 0..255, labels), random numbers from the generator. Labels are int64 [n], or
float [n, classes] that sum to 1 (votes, or mixed faces); with teachers float
[n, 2 * classes]: the labels, then the teachers' probabilities at the recipe's temperature."""

Faces = tuple[Pixels, npt.NDArray[Any]]
"""Faces [n, h, w] and their labels: integers [n] or floats [n, classes]."""

_FROM_SCRATCH = Transfer()


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch. Losses are means per image, accuracies fractions."""

    number: int
    """From 1."""
    train_loss: float
    """The minimised loss: with augmentation, dropout, label smoothing, class weights and teachers, without a net's
    L2."""
    train_accuracy: float
    val_loss: float
    """Plain cross-entropy; with several views, of the averaged probabilities."""
    val_accuracy: float
    learning_rate: float
    """Learning rate of the last iteration."""
    epoch_seconds: float
    """Seconds of training and validation."""
    images_per_second: float
    """Training alone."""
    iterations: tuple[tuple[int, float, float], ...]
    """(iteration from 1 over the whole run, mean training loss since the last point, learning rate)."""
    val_probabilities: npt.NDArray[np.float32]
    """[n, classes]."""

    def metrics(self) -> dict[str, float]:
        """The scalars of the epoch by name."""
        return {
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
            "learning_rate": self.learning_rate,
            "epoch_seconds": self.epoch_seconds,
            "images_per_second": self.images_per_second,
        }


def fit(
    state: TrainingState,
    batches: Batches,
    val: Faces,
    *,
    recipe: Recipe,
    epochs: int,
    seed: int,
    iterations_per_epoch: int,
    device: str = "cpu",
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "contiguous",
    class_counts: Sequence[int] | None = None,
    transfer: Transfer = _FROM_SCRATCH,
    micro_batches: int = 1,
    is_cancelled: Callable[[], bool] = lambda: False,
    team: Team = ALONE,
    graph: Callable[[], Graph] | None = None,
) -> Iterator[Epoch]:
    """Train from `state.epoch + 1` to `epochs`. Yield each epoch when `state` is the state after it.

    On a CPU a saved and loaded state continues bit-identically to an uninterrupted run: each epoch uses generators made
    from (seed, epoch). torch's global generators are not used.

    Args:
        state: modified in place; save it between epochs.
        batches: called once per epoch; must give `iterations_per_epoch` batches.
        val: faces to validate on after each epoch, in the `views` of the recipe.
        recipe: the one that `state` was made with, as is `transfer`.
        epochs: length of the whole run, which most learning rate policies span (each phase of it, where it has two).
        seed: any integer >= 0.
        class_counts: training images per class, for `class_weights="balanced"`.
        micro_batches: number of parts into which each batch is split to save memory. Gradients are accumulated, so a
            step equals that of the whole batch within rounding, except that batch norm uses the statistics of each
            part, and dropout other masks. Validation batches become smaller by the same factor.
        is_cancelled: called before each batch and before its backward pass, which takes most of the time; if it is
            True, the epoch ends with `Cancelled`.
        team: the processes that call this together, with equal arguments. Each yields the same epochs.
        graph: captures the steps, which are replayed from the fourth on: `CudaGraph` on a GPU. Not used with several
            micro-batches or processes, nor in fp16, whose loss scale is read in every step.

    Raises:
        Cancelled: `is_cancelled` returned True.
        Diverged: a loss is NaN or infinite.
        ModelError: another number of batches than promised, balanced weights without counts, or more stages to
            freeze than the net has.
    """
    place(state, torch.device(device), memory_format)
    team.prepare(state.net)
    weights = _class_weights(recipe, class_counts, device)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision == "fp16")
    if state.loss_scale:
        scaler.load_state_dict(state.loss_scale)
    generator = torch.Generator(device)  # one for all epochs, since a recorded graph draws from it on each replay
    for phase in phases(recipe, transfer, epochs):
        if state.epoch >= phase.last_epoch:
            continue
        if state.epoch + 1 == phase.first_epoch > 1:
            state.forget()
        frozen = freeze_stages(state.net, phase.freeze)
        trainer = Trainer(
            state, phase, frozen, iterations_per_epoch, device, precision, weights, micro_batches, scaler, team,
            graph, is_cancelled,
        )  # fmt: skip
        for number in range(state.epoch + 1, phase.last_epoch + 1):
            started = time.perf_counter()
            with _seeded(seed, number, generator) as order:
                trained = trainer.train_epoch(_until(is_cancelled, batches(order)), number)
            batch_size = -(-EVALUATION_BATCH // micro_batches)
            judged = _validate(state.judged_net, val, recipe, device, precision, batch_size, team)
            if not math.isfinite(judged.loss):
                raise Diverged("val_loss", number, number * iterations_per_epoch, judged.loss)
            if recipe.lr_policy == "plateau":
                state.plateau.update(judged.accuracy, recipe)
            state.epoch, state.loss_scale = number, scaler.state_dict()
            yield _epoch(number, trained, judged, seconds=time.perf_counter() - started)


@contextmanager
def _seeded(seed: int, epoch: int, generator: torch.Generator) -> Iterator[torch.Generator]:
    """The net draws from `generator` within; yields the generator for the batches. Both are seeded."""
    batch_seed, net_seed = (int(word) for word in np.random.SeedSequence((seed, epoch)).generate_state(2))
    with drawing_from(generator.manual_seed(net_seed)):
        yield torch.Generator().manual_seed(batch_seed)


def _epoch(number: int, trained: Trained, judged: _Judged, seconds: float) -> Epoch:
    return Epoch(
        number=number,
        train_loss=math.fsum(trained.losses) / len(trained.losses),
        train_accuracy=trained.correct / trained.images,
        val_loss=judged.loss,
        val_accuracy=judged.accuracy,
        learning_rate=trained.rates[-1],
        epoch_seconds=seconds,
        images_per_second=trained.images / trained.seconds,
        iterations=trained.points(first=(number - 1) * len(trained.losses)),
        val_probabilities=judged.probabilities,
    )


def _until(
    is_cancelled: Callable[[], bool], batches: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in batches:
        if is_cancelled():
            raise Cancelled
        yield batch


class _Judged(NamedTuple):
    """What a net answers on the faces to validate on."""

    probabilities: npt.NDArray[np.float32]
    loss: float
    accuracy: float


def _validate(
    net: nn.Module, val: Faces, recipe: Recipe, device: str, precision: Precision, batch_size: int, team: Team
) -> _Judged:
    images, labels = val
    own = team.take(len(images))
    predicted = predict_logits(
        net, images[own], device=device, precision=precision, batch_size=batch_size, views=recipe.views
    )
    logits = team.joined(predicted).cpu()
    answers = torch.tensor(np.asarray(labels), dtype=torch.int64 if np.ndim(labels) == 1 else torch.float32)
    loss = cross_entropy(logits, answers).item()
    accuracy = count_right(logits, answers).item() / len(answers)
    return _Judged(logits.softmax(1).numpy(), loss, accuracy)


def _class_weights(recipe: Recipe, counts: Sequence[int] | None, device: str) -> Tensor | None:
    if recipe.class_weights == "none":
        return None
    if counts is None or min(counts) < 1:
        raise ModelError(f"class_weights 'balanced' needs an image of every class, class_counts is {counts}")
    weights = [sum(counts) / (len(counts) * count) for count in counts]
    return torch.tensor(weights, dtype=torch.float32, device=device)
