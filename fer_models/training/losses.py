"""Cross-entropy and right answers for labels that are whole numbers [n] or shares [n, classes]."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
    return (weight[labels] if labels.ndim == 1 else labels @ weight).sum()


def count_right(logits: Tensor, labels: Tensor) -> Tensor:
    """How many [] of [n, classes] are largest where labels [n] say, or where labels [n, classes] are largest."""
    return (logits.argmax(1) == (labels if labels.ndim == 1 else labels.argmax(1))).sum()
