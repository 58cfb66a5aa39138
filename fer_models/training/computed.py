"""Caches outputs of a net for a split's faces in a file; an unfinished file is completed later."""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.recipe import Precision
from fer_models.errors import ModelError
from fer_models.training.evaluate import in_batches

_REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Computing:
    """Progress, reported every few seconds."""

    what: str
    done: int
    total: int

    def __str__(self) -> str:
        return f"{self.what}: {self.done:,} of {self.total:,} faces"


def compute(
    path: Path,
    front: nn.Module,
    images: npt.NDArray[Any],
    device: str,
    precision: Precision,
    batch_size: int,
    what: str,
) -> Generator[Computing, None, npt.NDArray[Any]]:
    """Write the outputs of `front` for `images` to `path`, unless they are there, and return them as a memory map.

    One process computes and others wait for it. Until it is complete, the output is in a file beside `path`, which the
    next process completes if the first one ended too early. `what` names the output in progress and errors.

    Raises:
        ModelError: the file cannot be written.
    """
    if (whole := kept(path, len(images))) is not None:
        return whole
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(beside) as file:
            if (whole := kept(path, len(images))) is not None:
                return whole
            try:
                yield from _write(file, front, images, device, precision, batch_size, what)
                beside.replace(path)
            except OSError:
                beside.unlink()
                raise
        written: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    except OSError as error:
        raise ModelError(f"{path}: the {what} cannot be written: {error.strerror}") from error
    return written


def kept(path: Path, count: int) -> npt.NDArray[Any] | None:
    """The cached outputs of `count` faces. None if they are missing or incomplete."""
    try:
        rows: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return None
    return rows if len(rows) == count else None


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, created if it is missing, while no other process has its lock."""
    while True:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another process may have renamed the file while this one waited.
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield file
                return


def _write(
    file: BinaryIO, front: nn.Module, images: npt.NDArray[Any], device: str, precision: Precision, batch_size: int,
    what: str,
) -> Iterator[Computing]:  # fmt: skip
    """Write without a memory map, since on a full disk a memory map kills the process."""
    done = _resume_point(file, batch_size)
    reported = time.monotonic()
    for start in range(done, len(images), batch_size):
        with torch.inference_mode():  # not across a yield, where it would stay on in the caller
            (output,) = in_batches(front, front, images[start : start + batch_size], device, precision, batch_size)
            features = output.cpu().contiguous().numpy()
        if start == 0:
            header = np.lib.format.header_data_from_array_1_0(features)
            np.lib.format.write_array_header_1_0(file, header | {"shape": (len(images), *features.shape[1:])})
        file.write(features.data)
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            yield Computing(what, start + len(features), len(images))
    file.flush()
    os.fsync(file.fileno())


def _resume_point(file: BinaryIO, batch_size: int) -> int:
    """The number of faces in complete batches of an unfinished file; the rest is truncated."""
    file.seek(0)
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:  # empty, or an incomplete header
        file.truncate(0)
        return 0
    begin, row_bytes = file.tell(), math.prod(shape[1:]) * dtype.itemsize
    rows = (file.seek(0, os.SEEK_END) - begin) // row_bytes // batch_size * batch_size
    file.truncate(begin + rows * row_bytes if rows else 0)
    return rows
