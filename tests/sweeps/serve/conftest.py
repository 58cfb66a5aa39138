"""A sweep that the web application serves, and the application over real HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from fer_models import LeNetConfig, Recipe
from sweeps import Space, TrialConfig, run_sweep
from sweeps.cli.main import main
from sweeps.serve.app import Server, web_app
from sweeps.serve.guard import Guard
from sweeps.serve.mlflow_page import MlflowPages
from sweeps.serve.models import pool as model_pool
from tests.ports import free_port

LENET = TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.01, batch_size=8), precision="fp32",
                    memory_format="contiguous")  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    """A sweep `night`, its net exported beside it, so that no test waits for that."""
    out = tmp_path_factory.mktemp("served")
    run_sweep(Space(suggest=lambda trial: LENET, name="lenet_space"), data=tiny_csv, trials=1, epochs=2, name="night", out=out,
              runner="inline", figures=False)  # fmt: skip
    assert main(["export", "night/0", "--format", "onnx", "--file", str(out / "net.onnx"), "--out", str(out)]) == 0
    return out


def unfinished(out: Path, name: str) -> Path:
    """The journal of a copy of `night` whose trial is still training."""
    (out / name).mkdir()
    lines = (out / "night/journal.jsonl").read_text().replace('"night"', f'"{name}"').splitlines(keepends=True)
    last = next(place for place, line in enumerate(lines) if '"event":"end"' in line)
    journal = out / name / "journal.jsonl"
    journal.write_text("".join(lines[:last]))
    return journal


class Served(Server):
    """A server in a thread."""

    def __init__(self, out: Path, guard: Guard, pages: MlflowPages | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        super().__init__(uvicorn.Config(web_app(out, guard, model_pool.ModelPool(out), pages or MlflowPages(out, None)), port=self.port,
                                        log_level="warning", timeout_graceful_shutdown=1))  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        while not self.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.should_exit = True
        self._thread.join(10)


@pytest.fixture(scope="module")
def server(out: Path) -> Iterator[Served]:
    with Served(out, Guard(frozenset({"127.0.0.1"}), None)) as served:
        yield served
