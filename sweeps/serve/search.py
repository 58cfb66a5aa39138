"""The positions of a sweep's trials on the axis of each setting, and the settings' importances.

    python -m sweeps.serve.search OUT NAME

prints them as JSON. This takes seconds, and needs libraries that the web application does not load.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from pathlib import Path
from typing import Any

from fer_common.errors import run_command
from sweeps.serve.command import run_verb
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

_SECONDS = 120
_KEPT = 8
_MOST_TRIALS = 2000
"""Maximum number of lines in a picture; of more trials the best are used."""


class Searches:
    """The results of `settings_of` for several sweeps, computed again when further trials have ended."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._kept: dict[tuple[str, int], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def get(self, name: str, ended: int) -> dict[str, Any]:
        """The result for the sweep `name`, of which `ended` trials have ended. Raises InputError if it takes too
        long."""
        key = (name, ended)
        with self._lock:  # one process at a time: each takes a core and many pages ask for the same
            if key not in self._kept:
                printed = run_verb(str(self._out), name, module="sweeps.serve.search", timeout=_SECONDS)
                self._kept[key] = json.loads(printed)
                while len(self._kept) > _KEPT:
                    self._kept.pop(next(iter(self._kept)))
            return self._kept[key]


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
