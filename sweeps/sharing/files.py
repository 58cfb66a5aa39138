"""Stores the claims of one machine's sweeps as files that all its users can read."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from sweeps.sharing.division import Claim

VARIABLE = "FER_SLOTS"
_FOLDER = Path("/tmp/fer-sweeps-slots")
"""Not TMPDIR, which may differ between processes: all sweeps of the machine must use one folder."""


class ClaimStore(Protocol):
    """Where the drivers of one machine or cluster read each other's claims.

    If two drivers each write and then read, at least one of them reads the other's claim. Errors are OSError.
    """

    def put(self, claim: Claim) -> None:
        """Replace this driver's claim."""
        ...

    def all(self) -> list[Claim]:
        """The claims of live drivers, including this one's."""
        ...

    def close(self) -> None:
        """Remove this driver's claim."""
        ...


def ledger_folder() -> Path:
    """The folder of this machine's claims."""
    return Path(os.environ.get(VARIABLE) or _FOLDER)


class FileClaims:
    """One file per claim, with a lock file: the kernel releases the lock when the driver dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = ExitStack()
        self._is_held = False

    def put(self, claim: Claim) -> None:
        """Write this driver's claim atomically, without fsync, since it is useless after a crash of the machine."""
        if not self._is_held:
            self._hold(claim.id)
        self._write(claim.id, claim.model_dump_json())

    def all(self) -> list[Claim]:
        """The claims of all live drivers; those of dead ones are removed if permitted."""
        found = []
        for lock in sorted(self._folder.glob("[!.]*.lock")):
            claim = lock.with_suffix(".json")
            if not _is_locked(lock):
                with suppress(OSError):
                    claim.unlink(missing_ok=True)
                    lock.unlink()
                continue
            with suppress(OSError, ValidationError):  # removed in the meantime, or of another program
                found.append(Claim.model_validate_json(claim.read_bytes()))
        return found

    def close(self) -> None:
        """Remove this driver's claim."""
        self._own.close()
        self._is_held = False

    def _hold(self, own: str) -> None:
        if self._folder.is_symlink():
            raise OSError(f"{self._folder}: is a link")
        self._folder.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):  # another user created it
            self._folder.chmod(0o1777)
        lock, unlocked = self._folder / f"{own}.lock", self._folder / f".{own}.lock"
        file = self._own.enter_context(unlocked.open("x", encoding="utf-8"))
        unlocked.chmod(0o644)
        fcntl.flock(file, fcntl.LOCK_EX)
        unlocked.replace(lock)  # renamed once it is locked: an unlocked file is that of a dead driver
        self._own.callback(lock.unlink, missing_ok=True)
        self._own.callback((self._folder / f"{own}.json").unlink, missing_ok=True)
        self._is_held = True

    def _write(self, own: str, text: str) -> None:
        beside = self._folder / f".{own}.{os.getpid()}"
        beside.write_text(text, encoding="utf-8")
        beside.chmod(0o644)
        beside.replace(self._folder / f"{own}.json")


def _is_locked(lock: Path) -> bool:
    try:
        with lock.open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
