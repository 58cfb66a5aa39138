"""The output while a sweep runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Literal, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.cli.overview import pause_text
from sweeps.planning.budgets import Budgets
from sweeps.spec import SweepSpec
from sweeps.time_left import duration, seconds_left
from tracking.record.events import Act, AttemptStarted, EpochDone, Event, TrialEnded, TrialPaused, TrialStarted, Verdict
from tracking.record.history import SweepHistory, TrialHistory

T = TypeVar("T")

STATES: tuple[Literal["running", "waiting", "paused", "done", "pruned", "failed", "stopped"], ...] = (
    "running",
    "waiting",
    "paused",
    "done",
    "pruned",
    "failed",
    "stopped",
)
_OTHER_LINES = 6  # of the screen besides the rows of the live table
_CHEAP_SECONDS = 0.001
_SHARE = 0.01  # of the driver's time, at most, for output


def trial_name(trial: TrialHistory) -> str:
    """`3 AlexNet 1` for a baseline, `7 alexnet` for the others."""
    return f"{trial.number} {trial.started.title}"


def trials_begun(history: SweepHistory, spec: SweepSpec) -> str:
    """`3 of 12 trials`; with groups also the number of nets."""
    nets = len(history.trials)
    members = f" ({nets} nets)" if nets > history.configurations else ""
    return f"{history.configurations} of {spec.trials} trials{members}"


class _Sparingly(Generic[T]):
    """Caches a slow function so that it uses at most 1 % of the time."""

    def __init__(self, function: Callable[[SweepHistory], T]) -> None:
        self._function = function
        self._due = 0.0

    def __call__(self, history: SweepHistory) -> T:
        if time.monotonic() >= self._due:
            began = time.thread_time()
            self._answer = self._function(history)
            took = time.thread_time() - began
            self._due = time.monotonic() + (took / _SHARE if took > _CHEAP_SECONDS else 0)
        return self._answer


class Progress:
    """Prints the director's events: a live table in a terminal, lines elsewhere."""

    def __init__(self, console: Console, spec: SweepSpec, budgets: Budgets | None = None) -> None:
        self._console, self._spec = console, spec
        self._budgets = budgets or Budgets(spec)
        self._live: Live | None = None
        self._started = time.monotonic()
        self._seconds_left = _Sparingly(self._estimate)
        self._table = _Sparingly(self._draw)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the live table while the block runs, if the console is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def __call__(self, event: Event, history: SweepHistory) -> None:
        """Update the table or print a line."""
        if isinstance(event, Act) and event.spec:
            self._spec = SweepSpec.model_validate(event.spec)
        if self._live is not None:
            self._live.update(self._table(history))
            if not isinstance(event, TrialEnded | TrialPaused | Act):
                return
        left = self._time_left(history) if isinstance(event, EpochDone) else ""
        line = event_line(event, history, left)
        if line:
            self._console.print(Text(line), soft_wrap=True)

    def preparing(self, trial: TrialHistory, what: str) -> None:
        """Print what a trial does before its first epoch."""
        self._console.print(Text(f"trial {trial_name(trial)}: {what}"), soft_wrap=True)

    def _estimate(self, history: SweepHistory) -> float | None:
        # Acts and other sweeps change how many trials run at once.
        slots = sum(trial.has_worker for trial in history.trials.values())
        return seconds_left(history, self._spec, slots) if slots else None

    def _time_left(self, history: SweepHistory) -> str:
        left = self._seconds_left(history)
        return f"; about {duration(left)} left" if left else ""

    def _draw(self, history: SweepHistory) -> Group:
        table = Table(box=None, padding=(0, 2), header_style="bold")
        for heading in ("trial", "epoch", "train_loss", "val_accuracy", "best", "images/s"):
            table.add_column(heading, justify="left" if heading == "trial" else "right")
        running = [trial for trial in history.trials.values() if trial.state == "running"]
        rows = max(self._console.height - _OTHER_LINES, 1)
        for trial in running[:rows]:
            table.add_row(*_row(trial))
        if len(running) > rows:
            table.add_row(f"and {len(running) - rows} more")
        counts = "   ".join(f"{state} {history.count(state)}" for state in STATES if history.count(state))
        elapsed = duration(time.monotonic() - self._started)
        status = f"{trials_begun(history, self._spec)}   {counts}   {elapsed}{self._time_left(history)}"
        if budgets := self._budgets.lines(history):
            status += f"   budget: {', '.join(budgets)}"
        lines = [Text(status), Text(best_line(history), style="bold green")]
        if held := history.held:
            lines.insert(0, Text(pause_text(self._spec.name, held.who, held.asked_ms), style="yellow"))
        return Group(table, *lines)


def event_line(event: Event, history: SweepHistory, left: str = "") -> str | None:
    """An event as a line of text; None for events that are not shown. `left`, the time left, is appended to epochs."""
    match event:
        case TrialStarted() if event.config:
            trial = history.trials[event.trial]
            return f"trial {trial_name(trial)}: started (at most {event.epochs} epochs)"
        case AttemptStarted():
            trial = history.trials[event.trial]
            from_where = f"continues after epoch {trial.last_epoch}" if trial.last_epoch else "starts again"
            return f"trial {trial_name(trial)}: {from_where} ({event.reason})"
        case EpochDone():
            trial = history.trials[event.trial]
            values = event.metrics  # an ensemble and a support vector machine have no training
            loss = f"train_loss {values['train_loss']:.4f} " if "train_loss" in values else ""
            speed = f" ({values['images_per_second']:.0f} images/s)" if "images_per_second" in values else ""
            return (
                f"trial {trial_name(trial)}: epoch {event.epoch}/{trial.started.epochs} "
                f"{loss}val_accuracy {values['val_accuracy']:.2%}{speed}{left}"
            )
        case Verdict():
            return f"trial {event.trial}: {event.state}: {event.reason}"
        case Act():
            return f"{event.who}: {event.verb}: {'refused: ' if event.refused else ''}{event.answer}"
        case TrialPaused():
            trial = history.trials[event.trial]
            where = "" if trial.waits_at_rung else f"paused after epoch {event.epoch}: "
            return f"trial {trial_name(trial)}: {where}{history.reason_of(trial)}"
        case TrialEnded():
            best = event.best.get("best_val_accuracy")
            at = event.best.get("best_epoch")
            shown = f", best val_accuracy {best:.2%}" if best else ""
            shown += f" at epoch {at:.0f}" if best and at else ""
            why = f": {event.reason}" if event.reason and event.state != "pruned" else ""
            return f"trial {trial_name(history.trials[event.trial])}: {event.state}{shown}{why}"
    return None


def _row(trial: TrialHistory) -> tuple[str, ...]:
    best = trial.best_epoch()
    if best is None:
        return (trial_name(trial), f"0/{trial.started.epochs}", "", "", "", "")
    last = trial.epochs[-1].metrics
    return (
        trial_name(trial),
        f"{trial.last_epoch}/{trial.started.epochs}",
        f"{last['train_loss']:.4f}",
        f"{last['val_accuracy']:.2%}",
        f"{best.metrics['val_accuracy']:.2%}",
        f"{last['images_per_second']:.0f}",
    )


def best_line(history: SweepHistory) -> str:
    """The best trial so far, of a group its mean, as a line."""
    ranked = history.ranked_groups()
    if not ranked:
        return "best so far: none yet"
    best = ranked[0]
    mean = f", mean of {len(best.averaged)}" if best.size > 1 else ""
    return f"best so far: {best.mean:.2%} val_accuracy{mean}, trial {trial_name(best.ranked()[0])}"
