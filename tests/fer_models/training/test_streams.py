"""Streams and graphs of several trainings in one process, with stand-ins for what a GPU's driver does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Barrier, Thread

import pytest
import torch

from fer_common import captured
from fer_common.captured import CudaGraph, own_stream
from fer_common.own_draws import drawing_from


class Driver:
    """What was asked of the GPU, and the stream that is current."""

    def __init__(self) -> None:
        self.current: object = "default"
        self.registered: list[object] = []
        self.recorded_on: list[object] = []
        self.replays = 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()

    class Recorder:
        def register_generator_state(self, generator: object) -> None:
            found.registered.append(generator)

        def replay(self) -> None:
            found.replays += 1

    @contextmanager
    def recording(graph: Recorder, *, stream: object, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        found.recorded_on.append(stream)
        yield

    @contextmanager
    def using(stream: object) -> Iterator[None]:
        found.current, before = stream, found.current
        yield
        found.current = before

    monkeypatch.setattr(captured, "_free_streams", [])
    for name, stand_in in {
        "Stream": object, "stream": using, "CUDAGraph": Recorder, "graph": recording,
        "current_stream": lambda: found.current,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return found


def test_no_two_threads_have_one_stream_and_streams_are_used_again(driver: Driver) -> None:
    all_at_once = Barrier(4)

    def train() -> None:
        for _ in range(20):
            with own_stream("cuda"):
                all_at_once.wait(10)

    threads = [Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(captured._free_streams) == len(set(captured._free_streams)) == 4


def test_a_cpu_has_no_streams(driver: Driver) -> None:
    with own_stream("cpu"):
        assert driver.current == "default"
    assert captured._free_streams == []


def test_a_graph_is_recorded_on_the_trainings_stream_and_draws_from_its_generator(driver: Driver) -> None:
    generator, graph = torch.Generator(), CudaGraph()
    with own_stream("cuda"), drawing_from(generator):
        stream = driver.current
        graph.record(lambda: (torch.zeros(()),))
        graph.replay()
    assert driver.recorded_on == [stream]
    assert stream != "default"
    assert driver.registered == [generator]
    assert driver.replays == 2, "recording computes nothing, so that the graph is launched once for it"
