"""The verbs that steer a sweep: pause, unpause, extend, set, try, fork, retry, stop; while it runs and afterwards."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.cli import cluster_verbs
from sweeps.cli.console import console
from sweeps.driver.acts import Acts
from sweeps.errors import InputError
from sweeps.runs import find_run, open_sweep, sweep_folder
from sweeps.spec import recorded_spec
from tracking.record.events import Act
from tracking.record.folder_lock import FolderHeldError, folder_holder, hold_folder
from tracking.record.history import SweepHistory
from tracking.record.inbox import Request, post
from tracking.record.journal import Journal, read, read_from
from tracking.record.layout import SweepFolder

_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 600.0


def stop(given: argparse.Namespace) -> int:
    """Stop a sweep, resumable, or one of its trials for good."""
    if cluster_verbs.is_afar(given) and given.trial is None:
        return cluster_verbs.stop(given)
    return _act(given, "stop", _trial(given))


def pause(given: argparse.Namespace) -> int:
    """Pause a trial, or all of a sweep."""
    return _act(given, "pause", _trial(given))


def unpause(given: argparse.Namespace) -> int:
    """Have paused trials continue."""
    return _act(given, "unpause", _trial(given))


def extend(given: argparse.Namespace) -> int:
    """Give a sweep more trials, longer ones or more time."""
    asked = {"trials": given.trials, "epochs": given.epochs, "time_budget_seconds": given.time_budget_seconds}
    if not any(value is not None for value in asked.values()):
        raise InputError("say by what: --trials +20, --epochs 30 or --time-budget +30m")
    return _act(given, "extend", {name: value for name, value in asked.items() if value is not None})


def set_values(given: argparse.Namespace) -> int:
    """Change how a sweep runs."""
    pairs = [text.partition("=") for text in given.values]
    wrong = [name for name, equals, value in pairs if not (name and equals and value)]
    if wrong:
        raise InputError(f"'{wrong[0]}': expected key=value, as max-concurrent=4")
    return _act(given, "set", {name: value for name, _, value in pairs})


def try_settings(given: argparse.Namespace) -> int:
    """Train other settings next."""
    return _act(given, "try", {"settings": given.settings})


def fork(given: argparse.Namespace) -> int:
    """Continue from a trial's state with other settings."""
    if cluster_verbs.is_afar(given):
        return cluster_verbs.there(given)
    run = find_run(given.run, given.out)
    given.name = run.sweep.root.name
    asked = {"trial": run.trial.number, "settings": given.settings, "epoch": given.epoch}
    return _act(given, "fork", {name: value for name, value in asked.items() if value is not None})


def retry(given: argparse.Namespace) -> int:
    """Train the failed trials again."""
    if not given.failed:
        raise InputError("say which trials: --failed")
    return _act(given, "retry", {})


def _trial(given: argparse.Namespace) -> Mapping[str, Any]:
    if given.trial is None:
        return {}
    if not given.trial.isdecimal():
        raise InputError(f"'{given.trial}': a trial's number is expected, as 3")
    return {"trial": int(given.trial)}


def _act(given: argparse.Namespace, verb: str, arguments: Mapping[str, Any]) -> int:
    """Perform the act and print its answer. Raises InputError where it is refused."""
    if cluster_verbs.is_afar(given):
        return cluster_verbs.there(given)
    folder = sweep_folder(given.name, given.out)
    request = Request(verb=verb, arguments=dict(arguments))
    try:
        with hold_folder(folder.root):
            act, runs = _do_here(folder, given, request), False
    except FolderHeldError:
        act, runs = _ask_the_driver(folder, request), True
    if given.json:
        print(act.model_dump_json())  # noqa: T201  (for programs: as it is, without rich)
    elif not act.refused:
        console.print(f"{given.name}: {act.answer}")
        if not runs and not SweepHistory.load(folder.journal).finished:
            where = "" if given.out == Path("runs") else f" --out {given.out}"
            console.print(f"it does not run now; continue with it:\n  python -m sweeps resume {given.name}{where}")
    if act.refused:
        raise InputError(f"{given.name}: {act.answer}")
    return 0


def _ask_the_driver(folder: SweepFolder, request: Request) -> Act:
    """Post the act to the inbox, and wait for the driver's answer in the journal."""
    offset = folder.journal.stat().st_size
    path = post(folder, request)
    begin = time.monotonic()
    try:
        while True:
            alive = folder_holder(folder.root) is not None
            events, offset = read_from(folder.journal, offset)
            for event in events:
                if isinstance(event, Act) and event.act == request.act:
                    return event
            if events:
                continue
            if not alive:
                raise InputError(f"{folder.root.name}: its driver left before it answered; ask again")
            if time.monotonic() - begin > _PATIENCE_SECONDS:
                raise InputError(f"{folder.root.name}: its driver has not answered for {_PATIENCE_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
    finally:
        path.unlink(missing_ok=True)


def _do_here(folder: SweepFolder, given: argparse.Namespace, request: Request) -> Act:
    """Perform the act on a sweep without a driver, while holding its folder."""
    from sweeps.driver.director import Director
    from sweeps.fixed_space import fix_settings
    from sweeps.search.study import Study
    from sweeps.spaces.find import find_space

    _, history = open_sweep(given.name, given.out)
    spec = recorded_spec(history)
    space = spec.as_at_its_start(find_space(spec.space)).with_baselines(spec.which_baselines)
    space = fix_settings(space, spec.settings, spec.seed)
    space = replace(space, sampler=spec.sampler, pruner=spec.pruner, max_epochs=spec.max_epochs)
    with Journal.open(folder.journal) as journal:
        study = Study(folder.study_log, space, spec.seed, read(folder.journal))
        director = Director(folder, spec, space, history, journal, study)
        return Acts(folder, space, None).perform(director, request)


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "stop": stop,
    "pause": pause,
    "unpause": unpause,
    "extend": extend,
    "set": set_values,
    "try": try_settings,
    "fork": fork,
    "retry": retry,
}
