"""Epochs computed in a thread of their own, one further than what has been taken of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def one_ahead(items: Callable[[Event], Generator[T]], threads: int) -> Iterator[Iterator[T]]:
    """Compute the next item while the one before is in use.

    Where the block is left early, the event is set: the items are expected to end soon, are waited for, and are closed.

    Args:
        items: called once. What an item raises is raised where that item is taken.
        threads: how many torch uses for an operation; it is a setting of each thread.
    """
    import torch

    cancelled = Event()
    thread_of = ThreadPoolExecutor(1, "train", torch.set_num_threads, (threads,))
    with closing(items(cancelled)) as coming, thread_of as thread:

        def taken() -> Iterator[T]:
            running = thread.submit(next, coming, None)
            while (item := running.result()) is not None:
                running = thread.submit(next, coming, None)
                yield item

        try:
            yield taken()
        finally:
            cancelled.set()
