"""Captures a function of tensors as a CUDA graph, which a GPU replays with all operations launched together.

A graph uses the memory with which it was captured. So other tensors of the function (weights, statistics, optimizer
state) must be modified in place, and the function must neither read values nor branch on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Protocol

import torch
from torch import Tensor

from fer_common.own_draws import own_generator

Tensors = tuple[Tensor, ...]
Act = Callable[[], Tensors]

_WARM_UP = 3
"""Number of calls before the capture: libraries and optimizers allocate memory in their first calls."""

undisturbed = RLock()
"""Held while a graph is captured. Meanwhile no other thread may capture one, or free GPU memory that torch caches."""

_free_streams: list[torch.cuda.Stream] = []


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Run this thread on a GPU stream that no other thread uses at the same time; no effect on a CPU.

    Otherwise a graph would capture what other threads compute on its stream. Streams are reused, since torch has only
    32 and then returns the first one again.
    """
    if torch.device(device).type == "cpu":
        yield
        return
    try:
        stream = _free_streams.pop()
    except IndexError:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        _free_streams.append(stream)


class Graph(Protocol):
    """Captures a function and replays it on the same memory."""

    def record(self, act: Act) -> Tensors:
        """Capture it and run it once. Returns the results, which every `replay` overwrites."""
        ...

    def replay(self) -> None:
        """Replay it."""
        ...


class CudaGraph:
    """A graph of the current GPU. It is used within `own_stream`, where autograd's part of a step runs as well."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def record(self, act: Act) -> Tensors:
        """Capturing computes nothing. Another thread may use the GPU at the same time, on its own stream."""
        if (generator := own_generator()) is not None:
            self._graph.register_generator_state(generator)
        here = torch.cuda.current_stream()
        with undisturbed, torch.cuda.graph(self._graph, stream=here, capture_error_mode="thread_local"):
            made = act()
        self._graph.replay()
        return made

    def replay(self) -> None:
        """Launch the whole graph."""
        self._graph.replay()


class Captured:
    """Calls a function, from the fourth call on as a graph, for the first `shapes` shapes of its tensors.

    Calls with other shapes, such as a smaller last batch, are computed eagerly.
    """

    def __init__(self, kind: Callable[[], Graph], shapes: int = 1) -> None:
        self._kind, self._shapes = kind, shapes
        self._recordings: dict[object, _Recording] = {}

    def __call__(self, function: Callable[..., Tensors], *given: Tensor) -> Tensors:
        """The result of the function, which must be the same one at every call; the tensors are new at every call."""
        key = tuple((one.shape, one.dtype) for one in given)
        recording = self._recordings.get(key)
        if recording is None:
            if len(self._recordings) == self._shapes:
                return function(*given)
            recording = self._recordings[key] = _Recording(self._kind())
        return recording(function, given)


class _Recording:
    """The calls with tensors of one shape."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._calls = graph, 0
        self._given: Tensors = ()
        self._made: Tensors = ()

    def __call__(self, function: Callable[..., Tensors], given: Tensors) -> Tensors:
        self._calls += 1
        if self._calls <= _WARM_UP:
            return function(*given)
        if self._calls == _WARM_UP + 1:
            self._given = tuple(one.clone() for one in given)
            self._made = self._graph.record(lambda: function(*self._given))
        else:
            for kept, one in zip(self._given, given, strict=True):
                kept.copy_(one)
            self._graph.replay()
        return tuple(one.clone() for one in self._made)
