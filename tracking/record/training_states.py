"""A trial's training states as files, handled without torch."""

import json
import os
import shutil
from pathlib import Path

from tracking.record.best_epoch import KeepBest, best_epoch
from tracking.record.events import EpochResults
from tracking.record.layout import TrialFolder
from tracking.record.predictions import read_predictions


def state_epoch(path: Path) -> int:
    """The epoch of a training state, read from the header of its file."""
    return int(json.loads(_about(path)["state"])["epoch"])


def lost_best(files: TrialFolder, state: Path, keep_best: KeepBest) -> int | None:
    """The best epoch until a state of the trial, if its predictions are lost. None if they are not.

    Those of the state's own epoch are never lost: its net can make them again.
    """
    last = state_epoch(state)
    reports = json.loads(_about(state).get("extra", "{}")).get("reports", [])
    epochs = [EpochResults(epoch=one["epoch"], metrics=one["metrics"]) for one in reports if one["epoch"] <= last]
    best = best_epoch(epochs, keep_best)
    if best is None or best.epoch == last or read_predictions(files, best.epoch):
        return None
    return best.epoch


def _about(path: Path) -> dict[str, str]:
    """The metadata of a training state."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    about: dict[str, str] = head["__metadata__"]
    return about


def keep_state(files: TrialFolder, state: Path, to: TrialFolder) -> None:
    """Keep a trial's state in another folder, with the predictions and weights of its best epoch.

    A worker may write these files meanwhile. It writes predictions before weights, so the weights are kept first: if
    the predictions are of the wanted epoch, the weights are not of a later one.
    """
    to.create()
    for path, kept in ((files.best, to.best), (files.val_probabilities, to.val_probabilities), (state, to.last)):
        kept.unlink(missing_ok=True)
        if path.is_file():
            _link_or_copy(path, kept)


def take_state(kept: TrialFolder, files: TrialFolder) -> None:
    """Replace a trial's state by the one that was kept for it, so that its worker continues from there.

    Nothing is done if there is no such folder.
    """
    if not kept.root.is_dir():
        return
    files.previous.unlink(missing_ok=True)
    for path in kept.root.iterdir():
        (files.root / path.name).unlink(missing_ok=True)  # renaming to a second name of the same file does nothing
        path.replace(files.root / path.name)
    kept.root.rmdir()


def _link_or_copy(path: Path, to: Path) -> None:
    """Give the file a second name, or copy it. Its content is never changed in place."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copy(path, to)
