"""The random numbers of one training. torch's own generators are those of the process, which may train several nets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_generator: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Have the layers that this thread calls within the block draw from a generator of their device."""
    before = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(before)


def own_generator() -> torch.Generator | None:
    """The generator of the block that this thread is in; None, which torch takes for its own, outside of one."""
    return _generator.get()
