"""The number of parameters of a trial's net, also after its worker ended without a word."""

from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tracking.record.events import PARAMETERS
from tracking.record.history import TrialHistory
from tracking.record.layout import TrialFolder

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "input.shift", "input.scale")


def parameters_of(folder: TrialFolder, trial: TrialHistory) -> int | None:
    """The number of parameters of a trial's net, as reported at its end or, if it ended without a worker, as counted
    in its weights. None if neither is there."""
    reported = trial.end.best.get(PARAMETERS) if trial.end else None
    return int(reported) if reported else count_saved(folder.best)


def count_saved(path: Path) -> int | None:
    """The number of parameters in a file of weights, without buffers, by its header. None if it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            shapes: dict[str, list[int]] = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return sum(prod(shape) for name, shape in shapes.items() if not name.endswith(_BUFFERS))
