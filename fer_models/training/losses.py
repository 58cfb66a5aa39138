"""The loss and the correct predictions for labels that are class numbers [n] or probabilities [n, classes].

With teachers, labels are [n, 2 * classes]: the labels, then the teachers' probabilities at their temperature.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fer_models.configs.recipe import Recipe


def training_loss(logits: Tensor, labels: Tensor, recipe: Recipe, weight: Tensor | None = None) -> Tensor:
    """The mean [] over the batch, weighted by class: cross-entropy with the labels, mixed with the teachers' term.

    The teachers' term is the Kullback-Leibler divergence of the student from the teachers at the temperature, times the
    squared temperature, so that gradients do not shrink with the temperature (Hinton et al. 2015, 2).
    """
    if labels.ndim == 1 or labels.shape[1] == logits.shape[1]:
        return cross_entropy(logits, labels, weight, recipe.label_smoothing)
    labels, taught = labels.chunk(2, 1)
    temperature, share = recipe.distill_temperature, recipe.distill_share
    answers = (logits / temperature).log_softmax(1)
    apart = F.kl_div(answers, taught, reduction="none").sum(1)
    taught_loss = apart.mean() if weight is None else (apart * (labels @ weight)).sum() / total_weight(labels, weight)
    own = cross_entropy(logits, labels, weight, recipe.label_smoothing)
    return (1 - share) * own + share * temperature**2 * taught_loss


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """The mean [] over the batch, weighted by class, of labels [n] or [n, classes].

    torch divides by the class weights only if labels are class numbers. Here a class number and the equal one-hot label
    give the same loss.
    """
    if weight is None or labels.ndim == 1:
        return F.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing)
    total = F.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing, reduction="sum")
    return total / total_weight(labels, weight)


def total_weight(labels: Tensor, weight: Tensor | None) -> Tensor | float:
    """The divisor of `cross_entropy` for labels [n] or [n, classes]: n, or the sum [] of class weights."""
    if weight is None:
        return float(len(labels))
    return (weight[labels] if labels.ndim == 1 else labels[:, : len(weight)] @ weight).sum()


def count_right(logits: Tensor, labels: Tensor) -> Tensor:
    """The number [] of correct predictions: logits [n, classes], labels [n] or [n, classes]."""
    answers = labels if labels.ndim == 1 else labels[:, : logits.shape[1]].argmax(1)
    return (logits.argmax(1) == answers).sum()
