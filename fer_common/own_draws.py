"""The random numbers of one training. torch's own generators belong to the process, which may train several nets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_generator: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let the layers that this thread calls within the block draw from a generator of their device."""
    before = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(before)


def own_generator() -> torch.Generator | None:
    """The generator of the block that this thread is in. None outside of a block, which torch reads as its default."""
    return _generator.get()
