"""Writes a sweep's curves as TensorBoard event files, from its journal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.errors import InputError
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.layout import SweepFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

INSTALL = "pip install tensorboard"


def write_event_files(folder: SweepFolder, history: SweepHistory) -> Path:
    """Write one folder of event files per trial, replacing earlier ones. Returns the folder of all.

    Metrics of epochs are plotted against the epoch, training loss and learning rate against the iteration.
    Raises InputError if the optional package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(f"event files need an optional package: {INSTALL} ({error})") from None

    root = folder.root / "tensorboard"
    if root.exists():
        shutil.rmtree(root)
    for trial in history.trials.values():
        with SummaryWriter(str(root / f"{trial.number:04d}")) as writer:
            _write(writer, trial)
    return root


def _write(writer: SummaryWriter, trial: TrialHistory) -> None:
    config = json.dumps(trial.started.config, indent=1)
    writer.add_text(trial.started.title, f"    {config.replace(chr(10), chr(10) + '    ')}", 0)
    for epoch in trial.epochs:
        seconds = epoch.time_ms / 1000
        scalars = [(name, value, epoch.epoch) for name, value in epoch.metrics.items()]
        for iteration, loss, rate in epoch.iterations:
            scalars += [("iteration/train_loss", loss, iteration), ("iteration/learning_rate", rate, iteration)]
        for name, value, step in scalars:
            writer.add_scalar(name, value, step, walltime=seconds)
