"""Requests to a sweep that another process drives: one small file per act in the sweep's folder, read by the driver."""

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fer_common.frozen import Frozen
from fer_common.user import asked_ms, user_name
from tracking.errors import TrackingError
from tracking.record.files import write_bytes
from tracking.record.layout import SweepFolder

MOST_ACTS = 64
"""Maximum number of waiting acts: a responsive driver reads all of them in one second."""

_MOST_BYTES = 1 << 16


class Request(Frozen):
    """What a person asks of a sweep."""

    act: str = Field(default_factory=lambda: uuid.uuid4().hex[:12])
    verb: str
    arguments: dict[str, Any] = Field(default={})
    who: str = Field(default_factory=lambda: f"{user_name()}@{socket.gethostname()}")
    asked_ms: int = Field(default_factory=asked_ms)


def post(folder: SweepFolder, request: Request) -> Path:
    """Put an act into the sweep's inbox.

    Raises:
        TrackingError: the act is too large, or the inbox is full or cannot be written.
    """
    content = request.model_dump_json().encode()
    if len(content) > _MOST_BYTES:
        raise TrackingError(
            f"{request.verb}: its arguments have {len(content):,} bytes, at most {_MOST_BYTES:,} are taken"
        )
    try:
        folder.inbox.mkdir(mode=0o700, exist_ok=True)
        waiting = len(_files(folder))
    except OSError as error:
        raise TrackingError(f"cannot write to {folder.inbox}: {error.strerror}") from error
    if waiting >= MOST_ACTS:
        raise TrackingError(f"{folder.inbox}: {waiting} acts wait already, as many as it takes; wait for their answers")
    path = folder.inbox / f"{request.asked_ms:015d}-{request.act}.json"
    write_bytes(path, content)
    return path


def waiting_requests(folder: SweepFolder) -> Iterator[tuple[Path, Request | None]]:
    """The acts in a sweep's inbox, oldest first. A file that is not an act gives None."""
    for path in _files(folder):
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError
            yield path, Request.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            continue  # taken back
        except (OSError, ValueError, ValidationError):
            yield path, None


def _files(folder: SweepFolder) -> list[Path]:
    return sorted(folder.inbox.glob("[!.]*.json"))
