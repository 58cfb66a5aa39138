"""The steps of an epoch: forward, backward, optimizer, running average. A GPU may replay them as a graph.

Legend: n images of a batch, h and w height and width; an iteration is one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fer_common.captured import Captured, Graph
from fer_models.configs.recipe import Precision
from fer_models.errors import Cancelled, Diverged, ModelError
from fer_models.parts.auxiliary import WithAuxiliary
from fer_models.parts.staged import Constrained
from fer_models.training.evaluate import autocast
from fer_models.training.losses import count_right, total_weight, training_loss
from fer_models.training.schedule import Phase, learning_rate
from fer_models.training.state import TrainingState
from fer_models.training.team import ALONE, Team

EMA_ITERATIONS = 4
"""Number of iterations between updates of the average. An update costs a pass over all weights, which is noticeable
with small batches, and the average spans hundreds of iterations."""

POINT_ITERATIONS = 50
"""Number of iterations per point of an epoch's curve, which also has a point at its end."""

_UNSCALED = torch.amp.GradScaler("cpu", enabled=False)


@dataclass(frozen=True)
class Trained:
    """The steps of one epoch: a loss and a learning rate per iteration, and totals."""

    losses: list[float]
    rates: list[float]
    correct: int
    images: int
    seconds: float

    def points(self, first: int) -> tuple[tuple[int, float, float], ...]:
        """(iteration, mean loss since the last point, learning rate); `first` iterations came before the epoch."""
        found = []
        for start in range(0, len(self.losses), POINT_ITERATIONS):
            part = self.losses[start : start + POINT_ITERATIONS]
            end = start + len(part)
            found.append((first + end, math.fsum(part) / len(part), self.rates[end - 1]))
        return tuple(found)


@dataclass(frozen=True)
class Trainer:
    """Makes the steps of one phase."""

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
    graph: Callable[[], Graph] | None = None
    is_cancelled: Callable[[], bool] = lambda: False

    @cached_property
    def captured(self) -> Captured | None:
        """What captures the steps, if they can be captured."""
        if self.graph is None or self.scaler.is_enabled() or self.micro_batches * self.team.size > 1:
            return None
        for group in self.state.optimizer.param_groups:
            if "capturable" in group:  # Adam then counts its steps on the GPU
                group["capturable"] = True
        return Captured(self.graph)

    @cached_property
    def averaged(self) -> _Averaged | None:
        """The tensors of the running average and of the net."""
        if self.state.ema is None or self.phase.recipe.ema_decay is None:
            return None
        return _Averaged.of(self.state.ema, self.state.net)

    def train_epoch(self, batches: Iterator[tuple[Tensor, Tensor]], epoch: int) -> Trained:
        """Train on every batch.

        Raises:
            Diverged: a loss is NaN or infinite.
            ModelError: the number of batches is not `iterations_per_epoch`.
        """
        started = time.perf_counter()
        self.state.net.train()
        for module in self.frozen:
            module.eval()  # its batch norms would otherwise follow the batches
        promised, phase = self.iterations_per_epoch, self.phase
        before = (epoch - 1) * promised
        before_in_phase = (epoch - phase.first_epoch) * promised
        # Reading a loss waits for the GPU, so losses are read together there; on a CPU it costs nothing.
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
        return Trained(losses, rates, int(correct), images, time.perf_counter() - started)

    def _step(self, x: Tensor, labels: Tensor, rate: float, iteration: int) -> tuple[Tensor, Tensor]:
        """One iteration. Returns the loss [] and the number of correct predictions [], both on the device."""
        if self.captured is None:
            loss, right = self._learn(x, labels, rate)
        else:  # the rate is a tensor, since a graph would repeat a number; fp64 on a CPU for full precision
            kind = torch.float64 if x.device.type == "cpu" else torch.float32
            loss, right = self.captured(self._learn, x, labels, torch.full((), rate, dtype=kind, device=x.device))
        if self.averaged is not None and (iteration + 1) % EMA_ITERATIONS == 0:
            decay = min(self.phase.recipe.ema_decay or 0.0, (1 + iteration) / (10 + iteration))
            self.averaged.update(decay**EMA_ITERATIONS)
        return loss, right

    def _learn(self, x: Tensor, labels: Tensor, rate: float | Tensor) -> tuple[Tensor, Tensor]:
        """The iteration without the running average."""
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
        self.scaler.step(optimizer)  # in fp16 it skips a step with infinite gradients
        self.scaler.update()
        if isinstance(net, Constrained):
            net.after_step()
        return loss, right

    def _accumulate(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """`_backward` in parts, each weighted by its share of the batch, summed over the team."""
        whole, parts = total_weight(labels, self.class_weights), []
        for part, answers in zip(x.chunk(self.micro_batches), labels.chunk(self.micro_batches), strict=True):
            own = self.team.take(len(part))
            share = total_weight(answers[own], self.class_weights) / whole
            parts.append(self._backward(part[own], answers[own], share))
        loss, right = torch.stack([loss for loss, _ in parts]).sum(), torch.stack([right for _, right in parts]).sum()
        self.team.sum([loss, right, *(p.grad for p in self.state.net.parameters() if p.grad is not None)])
        return loss, right

    def _backward(self, x: Tensor, labels: Tensor, share: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        """Add the gradients of loss times `share`. Returns that product [] and the number of correct predictions []."""
        with autocast(self.device, self.precision):
            output = self.state.net(x)
        answer = output if isinstance(output, WithAuxiliary) else WithAuxiliary(output, (), 0.0)
        logits = answer.logits.float()
        loss = training_loss(logits, labels, self.phase.recipe, self.class_weights)
        for auxiliary in answer.auxiliary:
            own = training_loss(auxiliary.float(), labels, self.phase.recipe, self.class_weights)
            loss = loss + answer.weight * own
        if share is not None:
            loss = loss * share
        if self.graph is None and self.is_cancelled():  # a captured step cannot be cancelled
            raise Cancelled
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), count_right(logits.detach(), labels)


def _read_losses(unread: list[Tensor], epoch: int, before: int) -> list[float]:
    values: list[float] = torch.stack(unread).tolist()
    for step, value in enumerate(values, start=before + 1):
        if not math.isfinite(value):
            raise Diverged("train_loss", epoch, step, value)
    return values


class _Averaged(NamedTuple):
    """The tensors of a running average and of its net: parameters, floating-point buffers, and counters."""

    kept: list[Tensor]
    new: list[Tensor]
    kept_counters: list[Tensor]
    new_counters: list[Tensor]

    @classmethod
    def of(cls, ema: nn.Module, net: nn.Module) -> _Averaged:
        """The tensors of `ema`, an average of `net`."""
        pairs = list(zip(ema.state_dict().values(), net.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        others = [pair for pair in pairs if not pair[0].is_floating_point()]
        return cls(*([pair[side] for pair in part] for part in (floats, others) for side in (0, 1)))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Update the average; counters are copied."""
        torch._foreach_lerp_(self.kept, self.new, 1 - decay)
        if self.kept_counters:
            torch._foreach_copy_(self.kept_counters, self.new_counters)
