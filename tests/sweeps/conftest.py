"""Folders of their own for every test, and sweeps without MLflow."""

import functools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import sweeps.sweep
from sweeps.cli.main import run_main
from sweeps.cli.overview import all_sweeps
from sweeps.sharing.division import Claim
from sweeps.sharing.files import FileClaims
from sweeps.sharing.share import SharedSlots
from sweeps.sweep import run_plan
from tests.stand_ins import QUIET
from tests.sweeps import fake_trials


@pytest.fixture(scope="session")
def face_cache() -> Path:
    return Path(os.environ["FER_CACHE"])


@pytest.fixture(scope="module", autouse=True)
def as_on_an_idle_machine() -> Iterator[None]:
    """Without GPUs and the user's settings, in the fixtures of a module too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        for name in ("FER_DATA", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        # Nothing here pulls a plug, and waiting for the disk is most of what these sweeps would do.
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight train faces a class, two of val, one of test: 56, 14 and 7."""
    path = tmp_path_factory.mktemp("csv") / "tiny.csv"
    rows = ["emotion,pixels,Usage"]
    for usage, copies in (("Training", 8), ("PublicTest", 2), ("PrivateTest", 1)):
        for copy in range(copies):
            rows += [f"{label},{' '.join([str(30 * label + copy)] * 2304)},{usage}" for label in range(7)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands send nothing, and draw and publish nothing at a sweep's end."""
    monkeypatch.setattr("sweeps.cli.main.run_plan", functools.partial(run_plan, **QUIET))


@pytest.fixture
def sweep(tmp_path: Path, tiny_csv: Path) -> Callable[..., sweeps.sweep.SweepResult]:
    """`run_sweep` of the fake space on the tiny csv, in this process, in ./runs/night."""

    def run(**options: Any) -> sweeps.sweep.SweepResult:
        asked = {"data": str(tiny_csv), "name": "night", "runner": "inline", "out": tmp_path / "runs",
                 "space": fake_trials.SPACE, "body": fake_trials.good_body, **QUIET}  # fmt: skip
        return sweeps.run_sweep(**asked | options)

    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def space(tmp_path: Path) -> str:
    (tmp_path / "my_space.py").write_text(fake_trials.MY_SPACE)
    return "my_space.py"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, space: str, tiny_csv: Path, out: Path) -> Callable[..., int]:
    """`python -m sweeps.run my_space.py --data tiny.csv --name night …` with bodies that cost nothing."""
    monkeypatch.setattr("sweeps.cli.main.run_plan", functools.partial(run_plan, body=fake_trials.good_body, **QUIET))

    def act(*more: str) -> int:
        return run_main(
            [space, "--data", str(tiny_csv), "--out", str(out), "--runner", "inline", "--name", "night", *more]
        )

    return act


@pytest.fixture
def queued(
    run: Callable[..., int], out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[SharedSlots, Future[int]]]:
    """The share of a sweep that has every core, and the exit code of one that queues behind it."""
    monkeypatch.setenv("FER_SLOTS", str(tmp_path / "ledger"))
    cores = os.sched_getaffinity(0)
    claim = Claim(id="first", sweep="first", owner="anna", all_cores=frozenset(cores), cores=len(cores), priority=9)
    first = SharedSlots(FileClaims(tmp_path / "ledger"), claim, 1)
    assert first.slots_for(0, 1) == 1
    with ThreadPoolExecutor(1) as threads:
        code = threads.submit(run, "--wait", "--trials", "1")
        while not any(row.why for row in all_sweeps(out)):
            assert not code.done()
            time.sleep(0.05)
        yield first, code
        first.close()
