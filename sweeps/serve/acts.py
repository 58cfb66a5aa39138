"""Acts on a sweep, done by the commands of the same names, which record who asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sweeps.errors import InputError
from sweeps.serve.command import run_verb

_SECONDS = 120
_TAKES = {
    "extend": ("trials", "epochs"),
    "try": ("settings",),
    "set": ("settings",),
    "fork": ("trial", "settings"),
    "retry": (),
}
"""The fields that an act takes; the others take a trial."""
_EXAMPLES = {"try": "lr=0.01", "fork": "lr=0.01", "set": "max-concurrent=2"}


def _matching(pattern: str, rule: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(rule)
        return text

    return check


More = Annotated[str, AfterValidator(_matching(r"\+?[0-9]{1,6}", "must be a number, or +N to add N"))]
Setting = Annotated[
    str, AfterValidator(_matching(r"[A-Za-z_][\w.-]*=[^\n]{0,200}", "must be KEY=VALUE, such as lr=0.01"))
]


class ActRequest(BaseModel):
    """A requested act: `trial` for a single trial, `trials` or `epochs` (N or +N) for extend, `settings` (KEY=VALUE)
    for try, fork and set."""

    model_config = ConfigDict(extra="forbid")

    verb: Literal["stop", "pause", "unpause", "extend", "try", "fork", "set", "retry"]
    trial: int | None = Field(default=None, ge=0)
    trials: More | None = None
    epochs: More | None = None
    settings: list[Setting] = Field(default_factory=list, max_length=40)

    def words(self, name: str) -> list[str]:
        """The arguments of the command. Raises InputError if a field is missing, or given to an act without it."""
        for field, value in self.model_dump(exclude={"verb"}, exclude_defaults=True).items():
            if field not in _TAKES.get(self.verb, ("trial",)):
                raise InputError(f"{self.verb}: takes no {field} ({value} is given); leave it out")
        if self.verb == "extend":
            asked = {"--trials": self.trials, "--epochs": self.epochs}
            if not any(asked.values()):
                raise InputError("extend: give a number of trials or epochs, as +10")
            return [name, *(word for option, value in asked.items() if value for word in (option, value))]
        if self.verb in _EXAMPLES:
            if not self.settings:
                raise InputError(f"{self.verb}: give settings, as {_EXAMPLES[self.verb]}")
            if self.verb != "fork":
                return [name, *self.settings]
            if self.trial is None:
                raise InputError("fork: give the trial")
            return [f"{name}/{self.trial}", *self.settings]
        if self.verb == "retry":
            return [name, "--failed"]
        return [name] if self.trial is None else [name, str(self.trial)]


def act(out: Path, name: str, request: ActRequest) -> str:
    """Do the act. Returns the answer. Raises InputError if it is refused."""
    words = [request.verb, *request.words(name), "--out", str(out), "--json"]
    printed = run_verb(*words, timeout=_SECONDS)
    answer = json.loads(printed.strip().splitlines()[-1])
    return str(answer["answer"])
