"""Storage of a sweep's Optuna study, and the trials that samplers read from it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OwnLog(BaseJournalBackend):
    """Writes the format of `JournalFileBackend`, for a single storage.

    It has no lock and does not fsync each operation: the driver holds the lock of the sweep's folder, and after a crash
    the log is rebuilt.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0
        self._unread: list[str] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write the logs, and keep them for the next read."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        self._written += len(lines)
        self._unread += lines

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The logs from this number on that were not read yet."""
        del self._unread[: log_number_from - self._written + len(self._unread)]
        yield from map(json.loads, self._unread)


class SweepStorage(JournalStorage):
    """Gives samplers the trials that `shown` returns, instead of all stored trials."""

    def __init__(self, backend: BaseJournalBackend, shown: Callable[[], list[FrozenTrial]]) -> None:
        super().__init__(backend)
        self._shown = shown
        self._newest: int | None = None

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's."""
        self._newest = super().create_new_trial(study_id, template_trial)
        return self._newest

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials in these states."""
        if states is not None and TrialState.WAITING in states:  # for enqueued trials, which are requested at once
            newest = self.get_trial(self._newest) if self._newest is not None else None
            return [newest] if newest and newest.state in states else []
        found = [trial for trial in self._shown() if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found
