"""A trial's share of the memory of its GPU, and what happens if the share is too small.

torch may reserve only the share. A trial that needs more therefore runs out of memory itself, and other trials on the
same GPU do not.
"""

from __future__ import annotations

import gc

from sweeps.errors import NoRoomHere
from sweeps.trial.messages import MICRO_BATCHES, Task

CONTEXT_BYTES = 600 << 20
"""GPU memory of a process before its first tensor: CUDA's context and kernels."""

_SPARE = 0.1
_GIBIBYTE = 2**30

_shares: list[float] = []
"""The shares of the trials that run in this process now."""


class OutOfGpuMemoryError(Exception):
    """The trial does not fit into its share of a GPU, even with half batches. The message has the sizes."""


class GpuMemory:
    """The memory of one trial on its GPU, while the block runs. On a CPU it does nothing.

    `micro_batches` is the number of parts in which each batch is computed; `note` gives the reason if it is not 1. The
    trial sets `last_epoch` to the last epoch on disk.
    """

    def __init__(self, task: Task) -> None:
        self.micro_batches = 1
        self.note: str | None = None
        self.last_epoch = 0
        self._task = task
        self._on_gpu = task.device == "cuda" and task.workers == 1  # several workers have whole GPUs
        self._failed_after: int | None = None
        self._shortage = ""
        self._taken_by_others = False

    def __enter__(self) -> GpuMemory:
        if self._on_gpu:
            drop_caches()
            _shares.append(self._task.gpu_share)
            _limit_to_shares()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_gpu:
            _shares.remove(self._task.gpu_share)
            if _shares:
                _limit_to_shares()

    def metrics(self) -> dict[str, float]:
        """The metrics to add to the report of an epoch."""
        return {MICRO_BATCHES: float(self.micro_batches)} if self.micro_batches > 1 else {}

    def ran_out(self, error: Exception) -> None:
        """Record the sizes, while the tensors that fill the memory still exist."""
        self._shortage = str(error).partition("\n")[0]
        if self._on_gpu:
            import torch

            free, total = torch.cuda.mem_get_info()
            own = torch.cuda.memory_reserved()
            share = _share_of_process()
            self._taken_by_others = others_exceed_their_share(free, total, own, share)
            self._shortage += (
                f" ({own / _GIBIBYTE:.1f} GiB reserved here, share {share:g}, "
                f"{free / _GIBIBYTE:.1f} of the GPU's {total / _GIBIBYTE:.1f} GiB free)"
            )

    def make_room(self) -> None:
        """Prepare to train the failed epoch again, when nothing refers to its tensors any more.

        The first retry is unchanged, the second one uses half batches.

        Raises:
            OutOfGpuMemoryError: half batches were already used.
            NoRoomHere: likewise, but other processes exceed their share, so the trial may fit later or elsewhere.
        """
        drop_caches()
        is_first_failure = self._failed_after != self.last_epoch
        self._failed_after = self.last_epoch
        if is_first_failure:
            return
        size, epoch = self._task.config.recipe.batch_size, self.last_epoch + 1
        half = -(-size // 2)
        if self.micro_batches == 1 and size >= 2 * self._task.workers:
            self.micro_batches = 2
            self.note = (
                f"from epoch {epoch} on each batch of {size} is computed in parts of {half} with accumulated "
                f"gradients, and batch norm's statistics are those of the parts, because of: {self._shortage}"
            )
            return
        tried = f"epoch {epoch} in parts of {half} of its batches of {size}: {self._shortage}"
        if self._taken_by_others:
            raise NoRoomHere(f"other processes use more than their share of the GPU's memory; {tried}")
        raise OutOfGpuMemoryError(f"{tried}; use a smaller batch_size, or a larger --gpus-per-trial")


def others_exceed_their_share(free_bytes: int, total_bytes: int, own_bytes: int, own_share: float) -> bool:
    """Whether the other processes clearly use more memory than their shares."""
    others = total_bytes - free_bytes - own_bytes - CONTEXT_BYTES
    return others > (max(0.0, 1 - own_share) + _SPARE) * total_bytes


def drop_caches() -> None:
    """Release GPU memory that this process has reserved but does not use."""
    import torch

    from fer_common.captured import undisturbed

    gc.collect()
    with undisturbed:
        torch.cuda.empty_cache()  # does nothing if CUDA was not used


def _share_of_process() -> float:
    return min(1.0, sum(_shares))


def _limit_to_shares() -> None:
    import torch

    total, share = torch.cuda.mem_get_info()[1], _share_of_process()
    own = share - (CONTEXT_BYTES / total if share < 1 else 0.0)
    torch.cuda.set_per_process_memory_fraction(max(own, 0.0))
