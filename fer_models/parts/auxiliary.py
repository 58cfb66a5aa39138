"""The output of a net with auxiliary heads in training."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class WithAuxiliary(NamedTuple):
    """Logits [n, classes] of the head and of each auxiliary head, whose losses have the factor `weight`."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    weight: float
