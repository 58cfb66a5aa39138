"""Training, one epoch at a time.

Legend: n images of a batch or split, h and w height and width; an iteration is one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_models.errors import Diverged, ModelError
from fer_models.evaluate import autocast, predict_logits
from fer_models.recipe import MemoryFormat, Precision, Recipe
from fer_models.schedule import learning_rate
from fer_models.state import TrainingState, place

EMA_ITERATIONS = 4
"""The average is brought up to date every so many iterations: each costs a pass over all weights, which shows in
small batches, and the average spans some hundred iterations anyway."""

POINT_ITERATIONS = 50
"""An epoch's curve has a point every so many iterations, and one at its end."""

Batches = Callable[[torch.Generator], Iterator[tuple[Tensor, Tensor]]]
"""One epoch of (x [n, 1, h, w] float 0..255, labels [n] int64), all randomness from the generator."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Losses are means an image, accuracies fractions."""

    number: int
    """From 1."""
    train_loss: float
    """As minimised: under augmentation, dropout, label smoothing and class weights."""
    train_accuracy: float
    val_loss: float
    """Plain cross-entropy."""
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
    val: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    *,
    recipe: Recipe,
    epochs: int,
    seed: int,
    iterations_per_epoch: int,
    device: str = "cpu",
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "contiguous",
    class_counts: Sequence[int] | None = None,
) -> Iterator[Epoch]:
    """Train from `state.epoch + 1` to `epochs`, yielding each epoch once `state` stands after it.

    On a CPU a state that was saved and loaded goes on to the same bits as an undisturbed run: each epoch
    draws from generators made from (seed, epoch). torch's global generators are left as they were.

    Args:
        state: changed in place; save it between epochs.
        batches: called once an epoch; must give `iterations_per_epoch` batches.
        val: uint8 images [n, h, w] and labels [n].
        recipe: the one that `state` was made with.
        epochs: length of the whole run, which the learning rate policies span.
        seed: any integer >= 0.
        class_counts: training images a class, for `class_weights="balanced"`.

    Raises:
        Diverged: a loss is NaN or infinite.
        ModelError: another number of batches than promised, or balanced weights without counts.
    """
    place(state, torch.device(device), memory_format)
    weights = _class_weights(recipe, class_counts, device)
    trainer = _Trainer(state, recipe, epochs * iterations_per_epoch, device, precision, weights)
    while state.epoch < epochs:
        started = time.perf_counter()
        number = state.epoch + 1
        batch_seed, net_seed = (int(word) for word in np.random.SeedSequence((seed, number)).generate_state(2))
        with torch.random.fork_rng(devices=_cuda_devices(device)):
            torch.manual_seed(net_seed)
            epoch_batches = batches(torch.Generator().manual_seed(batch_seed))
            trained = trainer.train_epoch(epoch_batches, number, iterations_per_epoch)
        probabilities, val_loss, val_accuracy = _validate(state.judged_net, val, device, precision)
        if not math.isfinite(val_loss):
            raise Diverged("val_loss", number, number * iterations_per_epoch, val_loss)
        if recipe.lr_policy == "plateau":
            state.plateau.update(val_accuracy, recipe)
        state.epoch = number
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
    recipe: Recipe
    run_iterations: int
    device: str
    precision: Precision
    class_weights: Tensor | None

    def train_epoch(self, batches: Iterator[tuple[Tensor, Tensor]], epoch: int, promised: int) -> _Trained:
        started = time.perf_counter()
        self.state.net.train()
        before = (epoch - 1) * promised
        # Reading a loss waits for a GPU, so there they are read together; on a CPU it costs nothing.
        read_every = 1 if torch.device(self.device).type == "cpu" else POINT_ITERATIONS
        losses: list[float] = []
        unread: list[Tensor] = []
        rates: list[float] = []
        images, correct = 0, torch.zeros((), dtype=torch.int64, device=self.device)
        for index, (x, labels) in enumerate(batches):
            rate = learning_rate(self.recipe, before + index, self.run_iterations, self.state.plateau.factor)
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
        net, optimizer, recipe = self.state.net, self.state.optimizer, self.recipe
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.precision):
            logits = net(x)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, weight=self.class_weights, label_smoothing=recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        optimizer.step()
        if self.state.ema is not None and recipe.ema_decay is not None and (iteration + 1) % EMA_ITERATIONS == 0:
            decay = min(recipe.ema_decay, (1 + iteration) / (10 + iteration))
            _update_ema(self.state.ema, net, decay**EMA_ITERATIONS)
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()


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
    val: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    device: str,
    precision: Precision,
) -> tuple[npt.NDArray[np.float32], float, float]:
    images, labels = val
    logits = predict_logits(net, images, device=device, precision=precision).cpu()
    answers = torch.tensor(np.asarray(labels), dtype=torch.int64)
    loss = F.cross_entropy(logits, answers).item()
    accuracy = (logits.argmax(1) == answers).sum().item() / len(answers)
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
