"""The verbs that change a sweep, running or not: pause, unpause, extend, set, try, fork, retry, stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

from fer_common.flags import Flag
from fer_common.quantities import read_seconds
from fer_common.verbs import Verb
from fer_data import open_cached, prepare
from sweeps.cli import cluster_verbs
from sweeps.cli.arguments import OfTrials, OnCluster, SweepName
from sweeps.cli.console import console, warn
from sweeps.config import TrialConfig
from sweeps.driver.acts import Acts
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.runs import command_for, find_run, open_sweep, refuse_made, sweep_folder
from sweeps.spec import recorded_spec
from tracking.mlflow_sync.run_records import death_of
from tracking.record.events import Act, DriverStopped
from tracking.record.folder_lock import FolderHeldError, folder_holder, hold_folder
from tracking.record.history import SweepHistory
from tracking.record.inbox import Request, post
from tracking.record.journal import Journal, read, read_from, whole_bytes
from tracking.record.layout import SweepFolder
from tracking.record.spans import last_work_ms

_POLL_SECONDS = 0.05
_SILENT_SECONDS = 3.0
"""How long the command waits for an answer before it says so."""


Settings = Annotated[tuple[str, ...], Flag("settings, as lr=0.02", "KEY=VALUE", positional=True)]


def _more(text: str) -> str:
    if not text.removeprefix("+").isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"'{text}': expected a number, as 40, or an increase, as +20")
    return text


def _more_time(text: str) -> float:
    if not text.startswith("+"):
        raise ArgumentTypeError(f"'{text}': expected an increase, as +30m")
    return read_seconds(text.removeprefix("+"))


class Steering(OnCluster):
    """A verb that changes what a sweep does."""

    as_json: Annotated[bool, Flag("print the act and its answer as JSON", name="json")] = False


class Stop(Steering, OfTrials):
    """Stop a sweep, which can be resumed, or end one of its trials for good.

    Example: python -m sweeps stop night 3
    """

    def __call__(self) -> int:
        if self.is_afar and self.trial is None:
            return _tell(self, self.name, cluster_verbs.stop(self, self.name))
        return _act(self, self.name, "stop", _trial(self.trial))


class Pause(Steering, OfTrials):
    """Pause a trial at its next report, or a whole sweep.

    Example: python -m sweeps pause night 3
    """

    def __call__(self) -> int:
        return _act(self, self.name, "pause", _trial(self.trial))


class Unpause(Steering, OfTrials):
    """Continue a paused trial, or a paused sweep.

    Example: python -m sweeps unpause night 3
    """

    def __call__(self) -> int:
        return _act(self, self.name, "unpause", _trial(self.trial))


class Extend(Steering):
    """Give a sweep more trials, longer trials or more time.

    Example: python -m sweeps extend night --trials +20
    """

    name: SweepName
    trials: Annotated[str | None, Flag("trials in all, or +N more", "N", read=_more)] = None
    epochs: Annotated[
        str | None,
        Flag(
            "epochs per trial, or +N more; the best trials that are done continue from before their cooldown "
            "(lr_policy=wsd)",
            "N",
            read=_more,
        ),
    ] = None
    time_budget_seconds: Annotated[
        float | None, Flag("more time, as +30m", "+TIME", "time-budget", read=_more_time)
    ] = None

    def __call__(self) -> int:
        asked = self.model_dump(include={"trials", "epochs", "time_budget_seconds"}, exclude_none=True)
        if not asked:
            raise InputError("no change is given: add --trials +20, --epochs 30 or --time-budget +30m")
        return _act(self, self.name, "extend", asked)


class Set(Steering):
    """Change the number of trials at once, the priority or the weight of a sweep.

    Example: python -m sweeps set night max-concurrent=4
    """

    name: SweepName
    values: Annotated[tuple[str, ...], Flag("max-concurrent=N, priority=N, weight=X", "KEY=VALUE", positional=True)]

    def __call__(self) -> int:
        pairs = [text.partition("=") for text in self.values]
        wrong = [name for name, equals, value in pairs if not (name and equals and value)]
        if wrong:
            raise InputError(f"'{wrong[0]}': expected key=value, as max-concurrent=4")
        return _act(self, self.name, "set", {name: value for name, _, value in pairs})


class Try(Steering):
    """Train the best trial so far with other settings, next.

    Example: python -m sweeps try night lr=0.02
    """

    name: SweepName
    settings: Settings

    def __call__(self) -> int:
        return _act(self, self.name, "try", {"settings": list(self.settings)})


class Fork(Steering):
    """Start a new trial from a trial's state, with other settings.

    Example: python -m sweeps fork night/3 lr=0.01
    """

    run: Annotated[str, Flag("NAME/NUMBER of a trial that runs, is paused or was stopped", "RUN", positional=True)]
    settings: Settings
    epoch: Annotated[int | None, Flag("continue after this epoch (default: the last)", "N")] = None

    def __call__(self) -> int:
        if self.is_afar:
            return cluster_verbs.there(self, self.run.partition("/")[0])
        run = find_run(self.run, self.out)
        asked = {"trial": run.trial.number, "settings": list(self.settings), "epoch": self.epoch}
        present = {name: value for name, value in asked.items() if value is not None}
        return _act(self, run.sweep.root.name, "fork", present)


class Retry(Steering):
    """Train failed trials again, as new trials.

    Example: python -m sweeps retry night --failed
    """

    name: SweepName
    failed: Annotated[bool, Flag("all failed trials, except diverged ones")] = False

    def __call__(self) -> int:
        if not self.failed:
            raise InputError("no trials are given: add --failed")
        return _act(self, self.name, "retry", {})


def _trial(number: str | None) -> Mapping[str, Any]:
    if number is None:
        return {}
    if not number.isdecimal():
        raise InputError(f"'{number}': expected a trial's number, as 3")
    return {"trial": int(number)}


def _act(given: Steering, name: str, verb: str, arguments: Mapping[str, Any]) -> int:
    """Perform the act and print its answer. Raises InputError if it is refused."""
    if given.is_afar:
        return cluster_verbs.there(given, name)
    folder = sweep_folder(name, given.out)
    folder.check_owner("only its owner can change it")
    act, runs = _done(folder, Request(verb=verb, arguments=dict(arguments)))
    _tell(given, name, act)
    if not given.as_json and not runs and not SweepHistory.load(folder.journal).finished:
        console.print(f"the sweep has no driver now; to continue it:\n  {command_for(given.out, 'resume', name)}")
    return 0


def _tell(given: Steering, name: str, act: Act) -> int:
    if given.as_json:
        print(act.model_dump_json())  # noqa: T201  (for programs, without rich)
    elif not act.refused:
        console.print(f"{name}: {act.answer}")
    if act.refused:
        raise InputError(f"{name}: {act.answer}")
    return 0


def _done(folder: SweepFolder, request: Request) -> tuple[Act, bool]:
    """The act with its answer, and whether the sweep has a driver, which did it."""
    offset = whole_bytes(folder.journal)
    while True:
        try:
            with hold_folder(folder.root):
                return _do_here(folder, request), False
        except FolderHeldError as held:
            if act := _ask_the_driver(folder, request, offset, held.who):
                return act, True
            # It was another command, or a driver that was about to end.


def _ask_the_driver(folder: SweepFolder, request: Request, offset: int, who: str) -> Act | None:
    """Post the act to the inbox, and wait for the driver's answer in the journal; None if nobody is left to answer."""
    speaks_at = time.monotonic() + _SILENT_SECONDS
    with _posted(folder, request):
        while True:
            is_held = folder_holder(folder.root) is not None
            events, offset = read_from(folder.journal, offset)
            for event in events:
                if isinstance(event, Act) and event.act == request.act:
                    return event
            if events:
                continue
            if not is_held:
                return None
            if time.monotonic() > speaks_at:
                speaks_at = math.inf
                warn(f"{folder.root.name}: waiting for {who}, which answers at the next report of a trial, or once "
                     "the sweep has ended; Ctrl-C withdraws the act")  # fmt: skip
            time.sleep(_POLL_SECONDS)


@contextmanager
def _posted(folder: SweepFolder, request: Request) -> Iterator[None]:
    """Have the act in the sweep's inbox while the block runs; Ctrl-C, SIGTERM and SIGHUP withdraw it.

    SIGHUP comes when the terminal is closed. A signal that the caller ignores, as under nohup, stays ignored.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    path = post(folder, request)
    is_main = threading.current_thread() is threading.main_thread()
    ends = [one for one in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in ends}
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def _do_here(folder: SweepFolder, request: Request) -> Act:
    """Perform the act on a sweep that has no driver, while its folder is locked."""
    from sweeps.driver.director import Director
    from sweeps.fixed_space import with_options
    from sweeps.planning.checks import check_configurations
    from sweeps.planning.references import References
    from sweeps.search.study import Study
    from sweeps.spaces.find import find_space

    _, history = open_sweep(folder.root.name, folder.root.parent)
    refuse_made(folder.root.name, history.trials.values())
    spec = recorded_spec(history)
    space = with_options(spec.as_at_its_start(find_space(spec.space)), Options().completed_by(spec))

    def check(config: TrialConfig) -> None:
        found = References(spec, Options(out=folder.root.parent)).found(config)
        check_configurations([found], open_cached(prepare(spec.data)), spec)

    with Journal.open(folder.journal) as journal:
        if history.is_driven:  # its driver was killed; without an end, its workers would seem to work until the act
            stopped = DriverStopped(time_ms=last_work_ms(history), reason=death_of(history.drivers[-1]))
            journal.append(stopped)
            history.apply(stopped)
        study = Study(folder.study_log, space, spec.seed, read(folder.journal))
        director = Director(folder, spec, space, history, journal, study)
        return Acts(folder, space, None, check=check).perform(director, request)


VERBS: dict[str, type[Verb]] = {
    "stop": Stop,
    "pause": Pause,
    "unpause": Unpause,
    "extend": Extend,
    "set": Set,
    "try": Try,
    "fork": Fork,
    "retry": Retry,
}
