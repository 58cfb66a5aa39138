"""The positions of a sweep's trials on the axis of each setting, and the settings' importances.

    python -m sweeps.serve.search OUT NAME

prints them as JSON. This takes seconds, and needs libraries that the web application does not load.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fer_common.errors import run_command
from sweeps.serve.command import run_verb
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

_SECONDS = 120
_KEPT = 8
_SHARE = 0.02
"""Maximum part of the time that is spent on the results of one sweep while it has a driver."""
_MOST_TRIALS = 2000
"""Maximum number of lines in a picture; of more trials the best are used."""


class Version(NamedTuple):
    """What a result depends on: which sweep has the name, and how much of its journal was read."""

    sweep_id: str
    size_bytes: int
    is_driven: bool


@dataclass(frozen=True)
class _Kept:
    version: Version
    until: float
    """While the sweep has a driver, its later states get this result too until then, by time.monotonic()."""
    found: dict[str, Any]

    def serves(self, version: Version) -> bool:
        is_recent = version.is_driven and time.monotonic() < self.until
        return self.version == version or (is_recent and self.version.sweep_id == version.sweep_id)


class Searches:
    """The results of `settings_of` for several sweeps, computed again when a sweep has changed."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def get(self, name: str, version: Version) -> dict[str, Any]:
        """The result for the sweep `name` in that state. Raises InputError if it takes too long."""
        with self._lock:  # one process at a time: each takes a core and many pages ask for the same
            kept = self._kept.pop(name, None)
            if kept is None or not kept.serves(version):
                began = time.monotonic()
                printed = run_verb(str(self._out), name, module="sweeps.serve.search", timeout=_SECONDS)
                ended = time.monotonic()
                kept = _Kept(version, ended + (ended - began) / _SHARE, json.loads(printed))
            self._kept[name] = kept  # last, as the latest used
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
            return kept.found


def settings_of(history: SweepHistory) -> dict[str, Any]:
    """`settings` with the labels of their axes, `trials` with their positions on them (0..1), and `importances`."""
    from sweeps.after.importances import LEAST_TRIALS, importances
    from tracking.figures.search_figures import searched_settings

    settings = searched_settings(history)
    trials = []
    for trial in history.ranked()[:_MOST_TRIALS]:
        params = trial.started.params
        places = [one.position(params[one.name]) if one.name in params else math.nan for one in settings]
        if params:
            trials.append(
                {
                    "number": trial.number,
                    "value": trial.best_accuracy,
                    "places": [None if math.isnan(place) else round(place, 4) for place in places],
                }
            )
    return {
        "settings": [{"name": one.name, "log": one.log, "ticks": one.ticks} for one in settings],
        "trials": trials,
        "importances": {name: [share.value, share.low, share.high] for name, share in importances(history).items()},
        "least_trials": LEAST_TRIALS,
    }


def main(argv: list[str]) -> int:
    """Print the result. Returns the exit code."""

    def show() -> int:
        history = SweepHistory.load(SweepFolder(Path(argv[0]) / argv[1]).journal)
        print(json.dumps(settings_of(history)))  # noqa: T201
        return 0

    return run_command(argv, show, lambda line: print(line, file=sys.stderr))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
