"""Distinguishes a GPU that is out of memory from one that the process cannot use any more."""

from __future__ import annotations

import re
from collections.abc import Iterator

_OUT_OF_MEMORY = re.compile(r"CUDA (error: )?out of memory|(CUBLAS|CUDNN)_STATUS_\w*ALLOC\w*_FAILED")
_BROKEN = re.compile(
    r"CUDA (driver |unknown |initialization )?error|No CUDA GPUs|cudaGetDeviceCount|CUBLAS_STATUS_|CUSOLVER_STATUS_|"
    r"CUFFT_|cuDNN error|CUDNN_STATUS_"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether GPU memory ran out, in torch, cuBLAS or cuDNN."""
    import torch

    return any(
        isinstance(link, torch.OutOfMemoryError)
        or (isinstance(link, RuntimeError) and _OUT_OF_MEMORY.search(str(link)))
        for link in _chain(error)
    )


def is_broken_gpu(error: BaseException) -> bool:
    """Whether CUDA, cuBLAS or cuDNN failed in another way. After most such errors the process has no usable context."""
    import torch

    return any(
        isinstance(link, torch.AcceleratorError) or (isinstance(link, RuntimeError) and _BROKEN.search(str(link)))
        for link in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error with its causes and contexts, since the end of a `with` block may fail on the GPU, too."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
