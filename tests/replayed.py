"""What stands on a CPU where a CUDA graph stands on a GPU."""

from __future__ import annotations

from fer_common.captured import Act, Tensors


class Replayed:
    """Does the recorded act again, on the memory that it was recorded with."""

    replays = 0
    """Of all of them."""

    def record(self, act: Act) -> Tensors:
        """Do it, and keep it."""
        self._act, self._made = act, tuple(one.detach().clone() for one in act())
        return self._made

    def replay(self) -> None:
        """Do it again, and overwrite the results, as a graph does."""
        Replayed.replays += 1
        for kept, new in zip(self._made, self._act(), strict=True):
            kept.copy_(new.detach())
