"""Computes the next epoch in a thread while the last one is being used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def one_ahead(items: Callable[[Event], Generator[T]], threads: int) -> Iterator[Iterator[T]]:
    """Compute the next item in a thread while the last one is being used.

    If the block ends early, the event is set. The items must then end soon: they are waited for and closed.

    Args:
        items: called once. An exception of an item is raised where that item is taken.
        threads: number of torch threads per operation, which is a setting per thread.
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
