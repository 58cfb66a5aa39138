"""What every tracker does: none, MLflow in SQLite, MLflow on a server that is down."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.tracking.small_sweep import Sweep
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.sink import MlflowSink
from tracking.record.layout import SweepFolder
from tracking.tracker import NoTracker, Tracker


@dataclass
class Case:
    """A tracker of a sweep; `delivers` is whether its destination takes results."""

    tracker: Tracker
    sweep: Sweep
    delivers: bool
    warnings: list[str] = field(default_factory=list)


def nobody() -> str:
    """The URI of a server that is down."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(params=["none", "sqlite", "down"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    sweep = Sweep(SweepFolder(tmp_path / "night"))
    if request.param == "none":
        return Case(NoTracker(), sweep, delivers=True)
    warnings: list[str] = []
    uri = default_uri(tmp_path) if request.param == "sqlite" else nobody()
    sink = MlflowSink(sweep.folder.journal, tracking_uri=uri, out=tmp_path, on_warning=warnings.append)
    return Case(sink, sweep, request.param == "sqlite", warnings)


def test_a_sweep_is_followed_to_its_end(case: Case) -> None:
    case.sweep.start()
    case.tracker.start()
    case.tracker.start()
    case.sweep.trial(0)
    case.tracker.wake()
    case.sweep.epoch(0, 1)
    case.sweep.end(0, "done")
    case.sweep.finish()
    case.tracker.wake()
    unsent = case.tracker.close(lambda: 60.0)
    assert (unsent == 0) == case.delivers
    assert bool(case.warnings) == (not case.delivers), "a destination that is down is a warning"


def test_closing_leaves_what_cannot_be_sent_at_once(case: Case) -> None:
    case.sweep.start()
    case.tracker.start()
    assert case.tracker.close(lambda: 0.0) >= 0
