"""What stands where a sweep has something slow that a test or a benchmark is not about."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class NoTracker:
    """Stands where MLflow's sink stands."""

    def __init__(self, journal: Path, **_: Any) -> None: ...
    def start(self) -> None: ...
    def wake(self) -> None: ...

    def close(self, timeout_seconds: float) -> int:
        return 0


class NoClosing:
    """Stands where a sweep's closing stands, which takes seconds."""

    notes = ()

    def __init__(self, *_: Any) -> None: ...
    def draw(self, **_: Any) -> None: ...
    def keep_best(self, tracking_uri: str) -> None: ...
