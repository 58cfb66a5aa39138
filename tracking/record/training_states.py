"""A trial's training states as files, handled without torch."""

import json
import os
import shutil
from pathlib import Path

from tracking.record.layout import TrialFolder


def state_epoch(path: Path) -> int:
    """The epoch of a training state, read from the header of its file."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(json.loads(head["__metadata__"]["state"])["epoch"])


def keep_state(files: TrialFolder, state: Path, to: TrialFolder) -> None:
    """Keep a trial's state in another folder, with the predictions and weights of its best epoch."""
    to.create()
    for path, kept in ((files.val_probabilities, to.val_probabilities), (files.best, to.best), (state, to.last)):
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
