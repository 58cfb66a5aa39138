"""Computes the next epoch in a thread while the last one is processed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import ContextVar
from threading import Event
from typing import TypeVar

T = TypeVar("T")

asked_to_leave: ContextVar[Event] = ContextVar("asked_to_leave")
"""Set by another thread if a trial is to end in the middle of an epoch: items that are computed ahead are cancelled."""


@contextmanager
def one_ahead(items: Callable[[Callable[[], bool]], Generator[T]], threads: int) -> Iterator[Iterator[T]]:
    """Compute the next item in a thread while the last one is processed.

    If the block ends early, the items are cancelled. They must then end soon: the block waits for them and closes them.

    Args:
        items: called once, with a function that returns whether the items are cancelled. An exception of an item is
            raised when that item is taken.
        threads: number of torch threads per operation, which is a setting per thread.
    """
    import torch

    left, asked = Event(), asked_to_leave.get(Event())
    thread_of = ThreadPoolExecutor(1, "train", torch.set_num_threads, (threads,))
    with closing(items(lambda: left.is_set() or asked.is_set())) as coming, thread_of as thread:

        def taken() -> Iterator[T]:
            running = thread.submit(next, coming, None)
            while (item := running.result()) is not None:
                running = thread.submit(next, coming, None)
                yield item

        try:
            yield taken()
        finally:
            left.set()
