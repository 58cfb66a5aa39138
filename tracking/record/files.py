"""Small files written atomically: to a temporary file, fsync, rename."""

import json
from pathlib import Path
from typing import Any

from fer_common.files import write_whole
from tracking.errors import TrackingError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file's content. A reader, or a program after a crash, sees the old content or the new one.

    Raises:
        TrackingError: a disk error; the old content stays.
    """
    try:
        write_whole(path, lambda file: file.write(data))
    except OSError as error:
        raise TrackingError(f"cannot write {path}: {error.strerror}; the earlier file is unchanged") from error


def write_json(path: Path, value: Any) -> None:
    """Replace the file by `value` as JSON.

    Raises:
        TrackingError: as `write_bytes`.
    """
    write_bytes(path, json.dumps(value, indent=2).encode() + b"\n")
