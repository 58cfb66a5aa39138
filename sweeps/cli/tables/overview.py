"""The sweeps of a folder as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from sweeps.cli.overview import Row
from sweeps.time_left import duration
from tracking.record.objectives import point_in_words

_COLOURS = {"running": "bold green", "waiting": "yellow", "paused": "yellow", "crashed": "red", "unreadable": "red"}
_HEADINGS = ("sweep", "state", "owner", "trials", "best val_accuracy", "slots", "priority", "left")
_FRONT_SHOWN = 4
_RIGHT = ("best val_accuracy", "slots", "priority", "left")
_OF_LIVING = ("slots", "priority", "left")


def table_of(rows: Sequence[Row]) -> Table:
    """One line per sweep; slots, priority and time left only if a sweep is running.

    Below the best accuracy of a sweep with several objectives is its Pareto front.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    shown = [heading for heading in _HEADINGS if heading not in _OF_LIVING or any(row.is_living for row in rows)]
    for heading in shown:
        justify: Literal["left", "right"] = "right" if heading in _RIGHT else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=heading == "best val_accuracy")
    for row in rows:
        digest = row.digest
        cells = (
            Text(row.name),
            Text(row.why or row.shown_state, style=_COLOURS.get(row.state, "")),
            Text(row.owner),
            Text(digest.fault or _trials(row)),
            _best(row),
            str(row.slots) if row.is_living else "",
            f"{digest.priority}" if row.is_living else "",
            duration(row.seconds_left) if row.seconds_left else "",
        )
        table.add_row(*cells[: len(shown)])
    return table


def as_json(rows: Sequence[Row]) -> str:
    """A JSON list with one object per sweep."""
    return json.dumps([_flat(row) for row in rows], indent=2) + "\n"


def state_text(row: Row) -> str:
    """The state of a sweep, with its host and process or its reason."""
    if row.why:
        return row.why
    if row.driver and row.is_living:
        return f"{row.shown_state} on {row.driver.host}, pid {row.driver.pid}, since {row.driver.since}"
    if row.state == "crashed":
        return "crashed (its driver died)"
    return f"{row.state} ({row.digest.stopped})" if row.digest.stopped and not row.digest.finished else row.state


def time_left(row: Row) -> str:
    """`about 3 min left on 2 slots`, or an empty text."""
    slots = f"{row.slots} slot{'' if row.slots == 1 else 's'}"
    return f"about {duration(row.seconds_left)} left on {slots}" if row.seconds_left else ""


def _trials(row: Row) -> str:
    counts = row.digest.trials
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    nets, begun = sum(counts.values()), row.digest.begun
    whole = f"{nets if begun is None else begun} of {row.digest.asked}"
    whole += f" ({nets} nets)" if begun is not None and nets > begun else ""
    return f"{whole}: {states}" if states else whole


def _best(row: Row) -> str:
    best = row.digest.best
    if best is None:
        return ""
    interval = f" ({best.low:.1%} to {best.high:.1%})" if best.low is not None and best.high is not None else ""
    mean = f", mean of {best.mean_of}" if best.mean_of else ""
    return "\n".join([f"{best.value:.2%}{interval}{mean}", *_front(row.digest.pareto)])


def _front(front: Sequence[dict[str, float]]) -> list[str]:
    """The front of several objectives, the most accurate first, one line each; of many the first and the last ones."""
    lines = [
        f"{point_in_words(list(point)[1:], list(point.values())[1:])} (trial {point['trial']:.0f})" for point in front
    ]
    if len(lines) > _FRONT_SHOWN:
        lines[2:-1] = [f"… {len(lines) - 3} between …"]
    return ["Pareto front:", *lines] if lines else []


def _flat(row: Row) -> dict[str, Any]:
    shown = row.model_dump(mode="json")
    digest: dict[str, Any] = shown.pop("digest")
    return shown | {name: value for name, value in digest.items() if name != "slot_seconds_left"}
