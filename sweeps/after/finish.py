"""Draws a sweep at its end and publishes its best trial, in separate processes, whose errors do not affect the
sweep."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from fer_common.own_modules import command, environment
from sweeps.runs import command_for
from sweeps.spec import recorded_spec
from sweeps.stop_signals import Deadline
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

_LONGEST_SECONDS = 300.0
_HURRIED_SECONDS = 10.0
"""SIGKILL usually follows SIGTERM after about half a minute."""
_POLL_SECONDS = 0.2
_LEAST_TRAINED_SECONDS = 60.0


class AtEnd(Protocol):
    """The steps after a sweep's trials are over. Each returns notes as text, and never raises.

    `is_hurried` returns whether a signal was received, also during the step.
    """

    def draw(self, history: SweepHistory, is_hurried: Callable[[], bool]) -> list[str]:
        """Draw the sweep before the tracker receives its end."""
        ...

    def publish_best(self, history: SweepHistory, tracking_uri: str, is_hurried: Callable[[], bool]) -> list[str]:
        """Inspect and register the best trial, once the tracker has the whole sweep."""
        ...


class NothingAtEnd:
    """Draws and publishes nothing."""

    def draw(self, history: SweepHistory, is_hurried: Callable[[], bool]) -> list[str]:
        """Do nothing."""
        return []

    def publish_best(self, history: SweepHistory, tracking_uri: str, is_hurried: Callable[[], bool]) -> list[str]:
        """Do nothing."""
        return []


class Closing:
    """Does both steps in separate processes, if they are worth their time; an error in either is one warning."""

    def __init__(self, folder: SweepFolder, on_warning: Callable[[str], None]) -> None:
        self._folder, self._on_warning = folder, on_warning
        self._drawn = False

    def draw(self, history: SweepHistory, is_hurried: Callable[[], bool]) -> list[str]:
        """Draw the sweep's files into its folder, unless they are up to date with the journal.

        To be called before MLflow receives the sweep's end and, with it, these files.
        """
        if not any((one.is_over or one.waits_at_rung) and one.best_epoch() for one in history.trials.values()):
            return ["no report yet: no trial has finished"]
        page, journal = self._folder.report, self._folder.journal
        if not page.is_file() or page.stat().st_mtime_ns < journal.stat().st_mtime_ns:
            fault, _ = _in_a_child("draw", self._folder, is_hurried)
            if fault:
                root = self._folder.root
                again = command_for(root.parent, "report", root.name)
                self._on_warning(f"the report was not written ({fault}); write it with: {again}")
                return []
            self._drawn = not is_hurried()
        return [f"report: {page}"]

    def publish_best(self, history: SweepHistory, tracking_uri: str, is_hurried: Callable[[], bool]) -> list[str]:
        """Draw the best trial's filters and feature maps and register its net, once MLflow has the whole sweep.

        Skipped if nothing has changed, and for a sweep that took less time than this would.
        """
        epochs = [epoch for trial in history.trials.values() for epoch in trial.epochs]
        trained_seconds = sum(epoch.metrics.get("epoch_seconds", 0.0) for epoch in epochs)
        in_folds = any(trial.started.fold for trial in history.trials.values())
        if not self._drawn or in_folds:
            return []
        if trained_seconds < _LEAST_TRAINED_SECONDS:
            if history.finished is None or recorded_spec(history).synthetic:
                return []
            register = command_for(self._folder.root.parent, "register", self._folder.root.name)
            return [f"not registered: its epochs took less than {_LEAST_TRAINED_SECONDS:.0f} s in all; {register}"]
        fault, lines = _in_a_child("publish_best", self._folder, is_hurried, tracking_uri)
        if fault:
            self._on_warning(f"the best trial was not inspected or registered completely: {fault}")
        return lines


def _in_a_child(
    task: str, folder: SweepFolder, is_hurried: Callable[[], bool], tracking_uri: str | None = None
) -> tuple[str | None, list[str]]:
    """Run a task of `main` in a separate process. Returns the error or None, and the printed lines."""
    around = environment()
    if tracking_uri:  # not as an argument, which every user of the machine can read: it may have a password
        around["MLFLOW_TRACKING_URI"] = tracking_uri
    deadline = Deadline(_LONGEST_SECONDS, _HURRIED_SECONDS, is_hurried)
    try:
        # In a separate session, since the driver handles Ctrl-C.
        child = subprocess.Popen(
            command("sweeps.after.pictures.draw_sweep", task, str(folder.root)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            env=around,
        )
    except OSError as error:
        return str(error), []
    with child:
        try:
            while deadline.left() > 0:
                with suppress(subprocess.TimeoutExpired):
                    printed, complaints = child.communicate(timeout=_POLL_SECONDS)
                    faults = complaints.strip().splitlines() or [f"exit code {child.returncode}"]
                    return (faults[-1] if child.returncode else None), printed.splitlines()
        finally:
            child.kill()
    if is_hurried():
        return f"it was not ready {_HURRIED_SECONDS:.0f} s after the signal", []
    return f"it took more than {_LONGEST_SECONDS:.0f} s", []
