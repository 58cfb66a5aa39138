"""The table that a check prints as it goes, and the JSON that it leaves."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line: `ok` is None where a number is only measured, not judged."""

    check: str
    ok: bool | None
    text: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """Runs checks one after another. A check that raises is a failed row; the rest still run."""

    json_file: Path | None
    seconds: float
    rows: list[Row] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def run(self, name: str, check: Callable[[], Iterator[Row]]) -> None:
        if self.elapsed > self.seconds:
            self._add(Row(name, None, f"not run: {self.seconds:.0f} s are over"))
            return
        try:
            for row in check():
                self._add(row)
        except Exception as error:
            last = traceback.format_exc().strip().splitlines()[-8:]
            self._add(Row(name, False, f"{type(error).__name__}: {error}", {"traceback": last}))

    @property
    def failed(self) -> list[str]:
        return [row.check for row in self.rows if row.ok is False]

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        mark = {True: "ok", False: "FAIL", None: ""}[row.ok]
        print(f"[{self.elapsed:5.0f} s] {mark:4s} {row.check}: {row.text}", flush=True)
        for line in row.values.get("traceback", ()):
            print(f"               {line}", flush=True)
        if self.json_file:
            self.json_file.write_text(json.dumps([asdict(row) for row in self.rows], indent=1))
