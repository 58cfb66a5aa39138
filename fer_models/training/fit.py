"""Training, one epoch at a time.

Legend: n images of a batch or split, h and w height and width; an iteration is one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_models.configs.recipe import MemoryFormat, Precision, Recipe
from fer_models.configs.transfer_config import Transfer
from fer_models.errors import Cancelled, Diverged, ModelError
from fer_models.parts.auxiliary import WithAuxiliary
from fer_models.parts.stages import freeze_stages
from fer_models.training.evaluate import EVALUATION_BATCH, Pixels, autocast, predict_logits
from fer_models.training.losses import count_right, cross_entropy, total_weight
from fer_models.training.schedule import Phase, learning_rate, phases
from fer_models.training.state import TrainingState, place
from fer_models.training.team import ALONE, Team

EMA_ITERATIONS = 4
"""The average is updated every so many iterations: each update costs a pass over all weights, which is noticeable in
small batches, and the average spans some hundred iterations anyway."""

POINT_ITERATIONS = 50
"""An epoch's curve has one point every so many iterations, and one at its end."""

Batches = Callable[[torch.Generator], Iterator[tuple[Tensor, Tensor]]]
"""One epoch of (x [n, 1, h, w] float 0..255, labels), all randomness from the generator. Labels are int64 [n], or
float [n, classes] that sum to 1: votes, or faces mixed with each other."""

Faces = tuple[Pixels, npt.NDArray[Any]]
"""Faces [n, h, w] and their labels: integers [n] or floats [n, classes]."""

_FROM_SCRATCH = Transfer()
_UNSCALED = torch.amp.GradScaler("cpu", enabled=False)


@runtime_checkable
class Constrained(Protocol):
    """A net with its own regularisers and constraints."""

    def before_step(self) -> None:
        """Called after each backward pass, before gradients are clipped."""
        ...

    def after_step(self) -> None:
        """Called after each of the optimizer's steps."""
        ...


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch. Losses are means per image, accuracies fractions."""

    number: int
    """From 1."""
    train_loss: float
    """As minimised: under augmentation, dropout, label smoothing and class weights; without a net's own L2."""
    train_accuracy: float
    val_loss: float
    """Plain cross-entropy; over several views, of the averaged probabilities."""
    val_accuracy: float
    learning_rate: float
    """At the last iteration."""
    epoch_seconds: float
    """Training and validation."""
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
) -> Iterator[Epoch]:
    """Train from `state.epoch + 1` to `epochs`; yield each epoch when `state` is after it.

    On a CPU a state that was saved and loaded continues to the same bits as an undisturbed run: each epoch
    draws from generators made from (seed, epoch). torch's global generators are left as they were.

    Args:
        state: changed in place; save it between epochs.
        batches: called once per epoch; must give `iterations_per_epoch` batches.
        val: faces to validate on after each epoch, in the `views` of the recipe.
        recipe: the one that `state` was made with, as is `transfer`.
        epochs: length of the whole run, which most learning rate policies span (each phase of it, where it has two).
        seed: any integer >= 0.
        class_counts: training images per class, for `class_weights="balanced"`.
        micro_batches: into how many parts each batch is split to save memory. Gradients are accumulated, so that
            a step is the whole batch's within rounding, but batch norm takes its statistics over each part, and
            dropout draws other masks. Validation batches become smaller by the same factor.
        is_cancelled: asked before each batch; the epoch ends there in `Cancelled`.
        team: the processes that call this together, with equal arguments. Each yields the same epochs.

    Raises:
        Cancelled: `is_cancelled` returned True.
        Diverged: a loss is NaN or infinite.
        ModelError: another number of batches than promised, balanced weights without counts, or more stages to
            freeze than the net has.
    """
    place(state, torch.device(device), memory_format)
    team.prepare(state.net)
    weights = _class_weights(recipe, class_counts, device)
    in_order = phases(recipe, transfer, epochs)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision == "fp16")
    if state.loss_scale:
        scaler.load_state_dict(state.loss_scale)
    while state.epoch < epochs:
        started = time.perf_counter()
        number = state.epoch + 1
        phase = [phase for phase in in_order if phase.first_epoch <= number][-1]
        if number == phase.first_epoch > 1:
            state.forget()
        frozen = freeze_stages(state.net, phase.freeze)
        trainer = _Trainer(
            state, phase, frozen, iterations_per_epoch, device, precision, weights, micro_batches, scaler, team
        )
        batch_seed, net_seed = (int(word) for word in np.random.SeedSequence((seed, number)).generate_state(2))
        with torch.random.fork_rng(devices=_cuda_devices(device)):
            torch.manual_seed(net_seed)
            epoch_batches = _until(is_cancelled, batches(torch.Generator().manual_seed(batch_seed)))
            trained = trainer.train_epoch(epoch_batches, number)
        probabilities, val_loss, val_accuracy = _validate(
            state.judged_net, val, recipe, device, precision, -(-EVALUATION_BATCH // micro_batches), team
        )
        if not math.isfinite(val_loss):
            raise Diverged("val_loss", number, number * iterations_per_epoch, val_loss)
        if recipe.lr_policy == "plateau":
            state.plateau.update(val_accuracy, recipe)
        state.epoch, state.loss_scale = number, scaler.state_dict()
        yield Epoch(
            number=number,
            train_loss=math.fsum(trained.losses) / len(trained.losses),
            train_accuracy=trained.correct / trained.images,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=trained.rates[-1],
            epoch_seconds=time.perf_counter() - started,
            images_per_second=trained.images / trained.seconds,
            iterations=trained.points(first=state.epoch * iterations_per_epoch - iterations_per_epoch),
            val_probabilities=probabilities,
        )


def _until(
    is_cancelled: Callable[[], bool], batches: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in batches:
        if is_cancelled():
            raise Cancelled
        yield batch


@dataclass(frozen=True)
class _Trained:
    losses: list[float]
    rates: list[float]
    correct: int
    images: int
    seconds: float

    def points(self, first: int) -> tuple[tuple[int, float, float], ...]:
        found = []
        for start in range(0, len(self.losses), POINT_ITERATIONS):
            part = self.losses[start : start + POINT_ITERATIONS]
            end = start + len(part)
            found.append((first + end, math.fsum(part) / len(part), self.rates[end - 1]))
        return tuple(found)


@dataclass(frozen=True)
class _Trainer:
    state: TrainingState
    phase: Phase
    frozen: tuple[nn.Module, ...]
    iterations_per_epoch: int
    device: str
    precision: Precision
    class_weights: Tensor | None
    micro_batches: int = 1
    scaler: torch.amp.GradScaler = _UNSCALED
    team: Team = ALONE

    def train_epoch(self, batches: Iterator[tuple[Tensor, Tensor]], epoch: int) -> _Trained:
        started = time.perf_counter()
        self.state.net.train()
        for module in self.frozen:
            module.eval()  # its batch norms would continue following the batches
        promised, phase = self.iterations_per_epoch, self.phase
        before = (epoch - 1) * promised
        before_in_phase = (epoch - phase.first_epoch) * promised
        # Reading a loss waits for a GPU, so there they are read together; on a CPU it costs nothing.
        read_every = 1 if torch.device(self.device).type == "cpu" else POINT_ITERATIONS
        losses: list[float] = []
        unread: list[Tensor] = []
        rates: list[float] = []
        images, correct = 0, torch.zeros((), dtype=torch.int64, device=self.device)
        for index, (x, labels) in enumerate(batches):
            rate = learning_rate(
                phase.recipe,
                before_in_phase + index,
                phase.epochs * promised,
                self.state.plateau.factor,
                phase.epochs,
            )
            loss, right = self._step(x.to(self.device), labels.to(self.device), rate, before + index)
            rates.append(rate)
            unread.append(loss)
            correct += right
            images += len(labels)
            if len(unread) == read_every:
                losses += _read_losses(unread, epoch, before + len(losses))
                unread = []
        if len(rates) != promised:
            raise ModelError(f"epoch {epoch} has {len(rates)} batches, expected {promised}")
        if unread:
            losses += _read_losses(unread, epoch, before + len(losses))
        return _Trained(losses, rates, int(correct), images, time.perf_counter() - started)

    def _step(self, x: Tensor, labels: Tensor, rate: float, iteration: int) -> tuple[Tensor, Tensor]:
        """One iteration: loss [] and number of right answers [], both left on the device."""
        net, optimizer, recipe = self.state.net, self.state.optimizer, self.phase.recipe
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        optimizer.zero_grad(set_to_none=True)
        in_one_piece = self.micro_batches == self.team.size == 1
        loss, right = self._backward(x, labels) if in_one_piece else self._accumulate(x, labels)
        self.scaler.unscale_(optimizer)
        if isinstance(net, Constrained):
            net.before_step()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        self.scaler.step(optimizer)  # which in fp16 leaves out a step whose gradients are infinite
        self.scaler.update()
        if isinstance(net, Constrained):
            net.after_step()
        if self.state.ema is not None and recipe.ema_decay is not None and (iteration + 1) % EMA_ITERATIONS == 0:
            decay = min(recipe.ema_decay, (1 + iteration) / (10 + iteration))
            _update_ema(self.state.ema, net, decay**EMA_ITERATIONS)
        return loss, right

    def _accumulate(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """`_backward` in parts, each weighted by its share of the batch's mean, and the sum over the team."""
        whole, parts = total_weight(labels, self.class_weights), []
        for part, answers in zip(x.chunk(self.micro_batches), labels.chunk(self.micro_batches), strict=True):
            own = self.team.take(len(part))
            share = total_weight(answers[own], self.class_weights) / whole
            parts.append(self._backward(part[own], answers[own], share))
        loss, right = torch.stack([loss for loss, _ in parts]).sum(), torch.stack([right for _, right in parts]).sum()
        self.team.sum([loss, right, *(p.grad for p in self.state.net.parameters() if p.grad is not None)])
        return loss, right

    def _backward(self, x: Tensor, labels: Tensor, share: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        """Add the gradients of the loss times `share`; that product [] and the number of right answers []."""
        with autocast(self.device, self.precision):
            output = self.state.net(x)
        answer = output if isinstance(output, WithAuxiliary) else WithAuxiliary(output, (), 0.0)
        logits = answer.logits.float()
        loss = self._loss(logits, labels)
        for auxiliary in answer.auxiliary:
            loss = loss + answer.weight * self._loss(auxiliary.float(), labels)
        if share is not None:
            loss = loss * share
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), count_right(logits.detach(), labels)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, self.class_weights, self.phase.recipe.label_smoothing)


def _read_losses(unread: list[Tensor], epoch: int, before: int) -> list[float]:
    values: list[float] = torch.stack(unread).tolist()
    for step, value in enumerate(values, start=before + 1):
        if not math.isfinite(value):
            raise Diverged("train_loss", epoch, step, value)
    return values


@torch.no_grad()
def _update_ema(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """Average parameters and floating buffers (running statistics); counters are copied."""
    averaged, current = [], []
    for kept, new in zip(ema.state_dict().values(), net.state_dict().values(), strict=True):
        if kept.is_floating_point():
            averaged.append(kept)
            current.append(new)
        else:
            kept.copy_(new)
    torch._foreach_lerp_(averaged, current, 1 - decay)


def _validate(
    net: nn.Module,
    val: Faces,
    recipe: Recipe,
    device: str,
    precision: Precision,
    batch_size: int,
    team: Team,
) -> tuple[npt.NDArray[np.float32], float, float]:
    images, labels = val
    own = team.take(len(images))
    predicted = predict_logits(
        net, images[own], device=device, precision=precision, batch_size=batch_size, views=recipe.views
    )
    logits = team.joined(predicted).cpu()
    answers = torch.tensor(np.asarray(labels), dtype=torch.int64 if np.ndim(labels) == 1 else torch.float32)
    loss = cross_entropy(logits, answers).item()
    accuracy = count_right(logits, answers).item() / len(answers)
    return logits.softmax(1).numpy(), loss, accuracy


def _class_weights(recipe: Recipe, counts: Sequence[int] | None, device: str) -> Tensor | None:
    if recipe.class_weights == "none":
        return None
    if counts is None or min(counts) < 1:
        raise ModelError(f"class_weights 'balanced' needs an image of every class, class_counts is {counts}")
    weights = [sum(counts) / (len(counts) * count) for count in counts]
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _cuda_devices(device: str) -> list[torch.device]:
    return [torch.device(device)] if torch.device(device).type == "cuda" else []
