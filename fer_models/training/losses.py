"""The loss and right answers for labels that are whole numbers [n] or shares [n, classes].

Where other nets teach, labels are [n, 2 * classes]: the labels' shares, then the teachers' at their temperature.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fer_models.configs.recipe import Recipe


def training_loss(logits: Tensor, labels: Tensor, recipe: Recipe, weight: Tensor | None = None) -> Tensor:
    """The mean [] over the batch, weighted by class: cross-entropy with the labels, mixed with the teachers' term.

    That term is the Kullback-Leibler divergence of the student from the teachers, both at the temperature, times its
    square, so that its gradients do not shrink with it (Hinton et al. 2015, 2).
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

    torch divides by the weights of the images where labels are whole numbers, but not where they are shares; here a
    whole number and all of a share are the same.
    """
    if weight is None or labels.ndim == 1:
        return F.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing)
    total = F.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing, reduction="sum")
    return total / total_weight(labels, weight)


def total_weight(labels: Tensor, weight: Tensor | None) -> Tensor | float:
    """What `cross_entropy` divides the sum over labels [n] or [n, classes] by: n, or the sum [] of class weights."""
    if weight is None:
        return float(len(labels))
    return (weight[labels] if labels.ndim == 1 else labels[:, : len(weight)] @ weight).sum()


def count_right(logits: Tensor, labels: Tensor) -> Tensor:
    """How many [] of [n, classes] are largest where labels [n] say, or where labels [n, classes] are largest."""
    answers = labels if labels.ndim == 1 else labels[:, : logits.shape[1]].argmax(1)
    return (logits.argmax(1) == answers).sum()
