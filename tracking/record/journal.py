"""The append-only journal of a sweep: one JSON event per line, fsynced before it counts.

The study, MLflow and tables are rebuilt from this file, so nothing in it is ever rewritten. Only a partial last line,
left by a crash, is removed: it had no effect yet.
"""

import gc
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from fer_common.files import sync_folder
from tracking.errors import TrackingError
from tracking.record.events import EVENT, FORMAT, Event

_CHUNK_BYTES = 1 << 20
_DRIVER = b'"event":"driver"'
"""Drivers of several versions may have written one journal. The first line of each one gives its format."""


class Journal:
    """Writes the journal. There is one writer at a time: hold the folder's lock."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open for appending. The file is created if it does not exist, and a partial last line is removed.

        Raises:
            TrackingError: the file cannot be opened or was written by a newer version.
        """
        try:
            if path.exists():
                trim_torn_tail(path)
                read_from(path, 0, max_bytes=1)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fsync(descriptor)
            sync_folder(path.parent)
        except OSError as error:
            raise TrackingError(f"cannot open the journal {path}: {error.strerror}") from error
        return cls(path, descriptor)

    def append(self, *events: Event) -> None:
        """Append the events with one write and one fsync: all of them count, or none.

        Raises:
            TrackingError: a disk error; earlier content stays.
        """
        lines = b"".join(event.model_dump_json().encode() + b"\n" for event in events)
        whole_bytes = os.fstat(self._descriptor).st_size
        try:
            _write_all(self._descriptor, lines)
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, whole_bytes)
            raise TrackingError(
                f"cannot write to {self._path}: {error.strerror}; everything recorded before is whole: "
                "fix that and resume the sweep"
            ) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path, end: int | None = None) -> Iterator[Event]:
    """Every event of a journal (before byte `end`), in order; a partial last line is left out.

    Raises:
        TrackingError: no such file, a corrupt line before the last, an unknown event, or a newer format.
    """
    offset = 0
    while True:
        events, after = read_from(path, offset, end=end)
        yield from events
        if after == offset:
            return
        offset = after


def read_from(
    path: Path, offset: int, *, end: int | None = None, max_bytes: int = _CHUNK_BYTES
) -> tuple[list[Event], int]:
    """The complete events from byte `offset` on, at most about `max_bytes`, and the offset to continue from.

    An unchanged offset means that there is nothing new. Nothing at or after byte `end` is read.

    Raises:
        TrackingError: as `read`.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            lines = file.readlines(max_bytes)
            at_end = not file.read(1)
    except OSError as error:
        raise TrackingError(f"cannot read the journal {path}: {error.strerror}") from error
    events: list[Event] = []
    for index, line in enumerate(lines):
        if end is not None and offset + len(line) > end:
            break
        # Without a line break it may be partial, even if the rest was written since it was read.
        if not line.endswith(b"\n") or (at_end and index == len(lines) - 1 and _is_torn(line)):
            break
        events.append(_parse(path, offset, line))
        offset += len(line)
    return events, offset


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector while many events are read and kept.

    It would look at all of them again and again, and none is garbage: a third of the time for 10,000 trials.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def whole_bytes(path: Path) -> int:
    """The offset after the last complete line; of one that is just being written, a part may be seen."""
    return path.read_bytes().rfind(b"\n") + 1


def trim_torn_tail(path: Path) -> int:
    """Remove a partial last line, left by a crash; return its number of bytes."""
    with path.open("rb+") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return 0
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
            begin = content.rfind(b"\n", 0, size - 1) + 1
            torn = _is_torn(content[begin:])
        if not torn:
            return 0
        file.truncate(begin)
        os.fsync(file.fileno())
        return size - begin


def _is_torn(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return True
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _parse(path: Path, offset: int, line: bytes) -> Event:
    if offset == 0 or _DRIVER in line:
        _check_format(path, line)
    try:
        event = EVENT.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise TrackingError(
            f"{path}:{_line_number(path, offset)}: not an event this version knows ({place}{first['msg']}); "
            "restore the file from a copy, or start under another name"
        ) from error
    if (event.event == "sweep") != (offset == 0):
        raise TrackingError(
            f"{path}:{_line_number(path, offset)}: '{event.event}' event; a journal opens with 'sweep' "
            "and has it nowhere else"
        )
    return event


def _check_format(path: Path, line: bytes) -> None:
    try:
        written = json.loads(line).get("format", FORMAT)
    except (ValueError, AttributeError):
        return  # the parser's message is better
    if written > FORMAT:
        raise TrackingError(f"{path}: journal format {written}, this version reads up to {FORMAT}: upgrade fer-sweeps")


def _line_number(path: Path, offset: int) -> int:
    with path.open("rb") as file:
        return file.read(offset).count(b"\n") + 1


def _write_all(descriptor: int, data: bytes) -> None:
    # On a full disk a part may be written first, and only the next call raises.
    while data:
        data = data[os.write(descriptor, data) :]
