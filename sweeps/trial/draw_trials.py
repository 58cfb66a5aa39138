"""Draws the pictures of trials that have ended, in a separate process: `python -m sweeps.trial.draw_trials`.

It reads one `ToDraw` per line, and answers each with a line: a JSON string with the error, or an empty one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fer_data import open_cached
from fer_data.cache.preprocess_cache import preprocessed
from sweeps.config import TrialConfig
from sweeps.trial.messages import ToDraw
from sweeps.trial.results import draw
from sweeps.trial.run_trial import cache_here
from tracking.errors import TrackingError
from tracking.record.history import TrialHistory
from tracking.record.layout import TrialFolder


def draw_trial(asked: ToDraw) -> None:
    """Write the trial's pictures into its folder, each atomically."""
    config = TrialConfig.model_validate(asked.started.config)
    faces = open_cached(preprocessed(cache_here(asked.faces, asked.data), config.preprocess))
    best = TrialHistory(asked.started, list(asked.epochs)).best_epoch()
    if best is None:
        raise TrackingError(f"{asked.folder}: no epoch has a finite score")
    title = f"trial {asked.started.trial}: {config.net.name}"
    draw(TrialFolder(Path(asked.folder)), faces, asked.epochs, best.epoch, title)


def main() -> None:
    """Draw until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with the answers
    for line in sys.stdin:
        fault = ""
        try:
            draw_trial(ToDraw.model_validate_json(line))
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        answers.write(json.dumps(fault) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
