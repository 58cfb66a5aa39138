"""What a net with auxiliary heads answers in training."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class WithAuxiliary(NamedTuple):
    """Logits [n, classes] of the head and of each auxiliary head, whose losses count `weight` times."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    weight: float
