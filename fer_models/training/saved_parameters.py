"""How many parameters a net on disk has, read from the file's header without torch."""

from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "input.shift", "input.scale")


def count_saved(path: Path) -> int | None:
    """Numbers in the weights that `save_weights` wrote, buffers aside; None for a file that cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            shapes: dict[str, list[int]] = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return sum(prod(shape) for name, shape in shapes.items() if not name.endswith(_BUFFERS))
