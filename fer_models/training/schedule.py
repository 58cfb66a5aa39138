"""The phases of a run, and the learning rate at an iteration. Does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fer_models.configs.recipe import Recipe
from fer_models.configs.transfer_config import Freeze, Transfer

_ONECYCLE_RISE = 0.3
_ONECYCLE_START = 1 / 25
_ONECYCLE_END = 1 / 250_000
_COOLDOWN_SHARE = 0.2  # of wsd's epochs


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs in which the same stages are trained with the same recipe."""

    first_epoch: int
    """From 1."""
    epochs: int
    recipe: Recipe
    freeze: Freeze

    @property
    def last_epoch(self) -> int:
        """The last epoch of this phase."""
        return self.first_epoch + self.epochs - 1


def phases(recipe: Recipe, transfer: Transfer, epochs: int) -> tuple[Phase, ...]:
    """The one or two phases of a run of `epochs`; each has at least one epoch."""
    share = transfer.finetune_epochs_share
    second = min(max(1, round(share * epochs)), epochs - 1) if share > 0 else 0
    first = Phase(1, epochs - second, recipe, transfer.freeze)
    if second == 0:
        return (first,)
    finetune = recipe.model_copy(update={"lr": transfer.finetune_lr or recipe.lr})
    freeze = transfer.freeze if transfer.finetune_freeze is None else transfer.finetune_freeze
    return first, Phase(first.epochs + 1, second, finetune, freeze)


def what_spans(recipe: Recipe, transfer: Transfer) -> str | None:
    """The setting that makes every epoch depend on the length of the run. None if there is none."""
    if recipe.spans_run:
        return f"lr_policy '{recipe.lr_policy}'"
    return "finetune_epochs_share" if transfer.finetune_epochs_share > 0 else None


def lasting_epochs(recipe: Recipe, transfer: Transfer, epochs: int) -> int:
    """How many of the first epochs of a run of `epochs` do not depend on the length of the run."""
    if what_spans(recipe, transfer):
        return 0
    return epochs - _cooldown_epochs(epochs) if recipe.lr_policy == "wsd" else epochs


def _cooldown_epochs(epochs: int) -> int:
    return max(1, round(_COOLDOWN_SHARE * epochs))


def learning_rate(
    recipe: Recipe, iteration: int, iterations: int, plateau_factor: float = 1.0, epochs: int = 1
) -> float:
    """The learning rate of `recipe` at index `iteration` (from 0) of a run of `iterations`, in `epochs` of equal
    length.

    `plateau_factor` is the product of the reductions so far; only `lr_policy="plateau"` has them.
    """
    if recipe.lr_policy == "wsd":
        return recipe.lr * _wsd(iteration, epochs, iterations // epochs)
    if recipe.lr_policy == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * iteration / iterations)) / 2
    if recipe.lr_policy == "onecycle":
        return recipe.lr * _onecycle(iteration / iterations)
    if recipe.lr_policy in ("step", "multistep", "inv", "poly"):
        return recipe.lr * _caffe(recipe, iteration, iterations)
    return recipe.lr * plateau_factor if recipe.lr_policy == "plateau" else recipe.lr


def _caffe(recipe: Recipe, iteration: int, iterations: int) -> float:
    gamma = recipe.gamma or 1.0
    numerator, denominator = iteration, 1
    if recipe.schedule == "scaled" and recipe.reference_iterations is not None:
        numerator, denominator = iteration * recipe.reference_iterations, iterations
    power, steps = recipe.power or 0.0, recipe.step_iterations
    if recipe.lr_policy == "poly":
        return float(max(0.0, 1 - numerator / (denominator * (recipe.reference_iterations or 1))) ** power)
    if recipe.lr_policy == "inv":
        return float((1 + gamma * numerator / denominator) ** -power)
    # In integers, so that rounding cannot delay a step.
    if isinstance(steps, tuple):
        return float(gamma ** sum(numerator >= denominator * step for step in steps))
    return float(gamma ** (numerator // (denominator * (steps or 1))))


def _wsd(iteration: int, epochs: int, per_epoch: int) -> float:
    cooldown = _cooldown_epochs(epochs) * per_epoch
    past = max(0, iteration - (epochs * per_epoch - cooldown))
    return min(1.0, (iteration + 1) / per_epoch) * (1 - math.sqrt(past / cooldown))


def _onecycle(progress: float) -> float:
    if progress < _ONECYCLE_RISE:
        return _cosine(_ONECYCLE_START, 1.0, progress / _ONECYCLE_RISE)
    return _cosine(1.0, _ONECYCLE_END, (progress - _ONECYCLE_RISE) / (1 - _ONECYCLE_RISE))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
