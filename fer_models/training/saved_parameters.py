"""Counts the parameters of a net on disk, from the file's header, without torch."""

from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "input.shift", "input.scale")


def count_saved(path: Path) -> int | None:
    """The number of parameters in a file of `save_weights`, without buffers. None if it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            shapes: dict[str, list[int]] = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return sum(prod(shape) for name, shape in shapes.items() if not name.endswith(_BUFFERS))
