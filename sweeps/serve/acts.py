"""Acts on a sweep, done by the same commands as on a terminal, which record who asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sweeps.errors import InputError
from sweeps.serve.command import run_verb

_SECONDS = 120
Setting = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*=[^\n]{0,200}$")]


class ActRequest(BaseModel):
    """What a person asks: `trial` for a single one, `trials` (N or +N) to extend, `settings` (KEY=VALUE) to try."""

    model_config = ConfigDict(extra="forbid")

    verb: Literal["stop", "pause", "unpause", "extend", "try"]
    trial: int | None = Field(default=None, ge=0)
    trials: str | None = Field(default=None, pattern=r"^\+?[0-9]{1,6}$")
    settings: list[Setting] = Field(default_factory=list, max_length=40)

    def words(self) -> list[str]:
        """The command line's arguments behind the sweep's name."""
        if self.verb == "extend":
            if self.trials is None:
                raise InputError("extend: say by how many trials, as +10")
            return ["--trials", self.trials]
        if self.verb == "try":
            if not self.settings:
                raise InputError("try: give settings, as recipe.lr=0.01")
            return list(self.settings)
        return [] if self.trial is None else [str(self.trial)]


def act(out: Path, name: str, request: ActRequest) -> str:
    """Have the act done; what came of it. Raises InputError where it is refused."""
    words = [request.verb, name, *request.words(), "--out", str(out), "--json"]
    printed = run_verb(*words, timeout=_SECONDS)
    answer = json.loads(printed.strip().splitlines()[-1])
    return str(answer["answer"])
