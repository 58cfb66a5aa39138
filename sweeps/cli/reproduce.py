"""`python -m sweeps reproduce`: the table of the reports' results, and one row trained and compared."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table
from rich.text import Text

from fer_common.errors import did_you_mean
from sweeps.cli import arguments
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.planning.plan import Plan
from sweeps.runs import Run
from sweeps.spaces.rows import ROWS, Measured
from tracking.metrics.scores import Interval, wilson_interval
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

_QUICK_FACES = 1_000


def listing() -> Table:
    """Every row: the published number, ours by the same recipe, our best with this net, and the minutes."""
    table = Table(
        title="the reports' rows and our records; accuracy on PublicTest / PrivateTest of FER2013",
        caption="minutes on an H200 were measured with 13 other rows at the same time; "
        "train one: python -m sweeps reproduce ROW --data fer2013.csv",
        header_style="bold",
        box=None,
    )
    for heading in ("row", "net and recipe", "the report", "ours by this recipe", "ours at best", "epochs", "minutes"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "row")
    for name, row in ROWS.items():
        ours = row.ours
        table.add_row(
            name,
            row.title(),
            row.published,
            accuracies(ours),
            row.best,
            (ours.epochs if ours else "") or str(row.epochs),
            f"{ours.minutes:g}, {ours.machine}" if ours and ours.minutes else "",
        )
    return table


def accuracies(ours: Measured | None) -> str:
    """`54.14 / 52.33 %`, or PublicTest only if PrivateTest was not read."""
    if ours is None:
        return "not run"
    return f"{ours.public:.2f} % PublicTest" if ours.private is None else f"{ours.public:.2f} / {ours.private:.2f} %"


def options(given: argparse.Namespace) -> Options:
    """The options of the row's sweep; an earlier one is resumed. Raises InputError."""
    if given.row not in ROWS:
        raise InputError(f"unknown row '{given.row}'{did_you_mean(given.row, ROWS)}")
    row = ROWS[given.row]
    given.name = given.name or (f"{given.row}-quick" if given.quick else given.row)
    given.resume = SweepFolder(given.out / given.name).journal.is_file()
    asked = arguments.options(given)
    if given.resume and "data" not in asked.model_fields_set:
        return asked
    changes: dict[str, Any] = {"classes": asked.data.classes or row.classes}
    if given.quick:
        changes["limit_train"] = asked.data.limit_train or _QUICK_FACES
        asked = asked.model_copy(update={"max_epochs": 1})
    return asked.model_copy(update={"data": asked.data.model_copy(update=changes)})


def published_against_ours(name: str, plan: Plan) -> Table:
    """The report's number, our recorded one, and that of this sweep so far."""
    row, spec = ROWS[name], plan.spec
    history = SweepHistory.load(plan.folder.journal)
    table = Table(title=Text(f"{name}: {row.title()}"), header_style="bold")
    for heading in ("", "accuracy", "95 % interval", "leak-free", "95 % interval", "epochs"):
        table.add_column(heading)
    table.add_row("the report", row.published or "none", "", "", "", "")
    if (ours := row.ours) is not None:
        for split, full, leak_free in (
            ("PublicTest", ours.public, ours.public_leak_free),
            ("PrivateTest", ours.private, ours.private_leak_free),
        ):
            if full is not None:
                table.add_row(f"our record, {split}", _percent(full), "", _percent(leak_free), "", ours.epochs)
    trial = history.trials.get(0)
    best = trial.best_epoch() if trial else None
    if trial is None or best is None:
        table.caption = "no epoch yet; repeat the command to continue"
        return table
    run = Run(plan.folder, history, trial)
    answers = run.predictions()
    right = answers.is_right
    clean = right[:0] if answers.leaked is None else right[~answers.leaked]
    length = f"{best.epoch} of {trial.last_epoch}"
    if trial.last_epoch < row.epochs:
        length += f"; the row has {row.epochs}"
    share = wilson_interval(int(right.sum()), len(right))
    unseen = wilson_interval(int(clean.sum()), len(clean)) if len(clean) else None
    table.add_row(
        f"this sweep, {spec.dataset}, {spec.val_title}",
        f"{share.value:.2%} of {len(right):,}", _ends(share),
        f"{unseen.value:.2%} of {len(clean):,}" if unseen else "not known", _ends(unseen) if unseen else "", length,
    )  # fmt: skip
    state = "" if trial.is_over else "not finished: repeat the command to continue. "
    if run.tested:
        table.caption = f"{state}test split, {run.tested}"
    elif trial.tests:
        table.caption = f"{state}test split: evaluated before it found this epoch; once more: {_test(plan)} --again"
    else:
        table.caption = f"{state}evaluate it on the test split, once: {_test(plan)}"
    return table


def _test(plan: Plan) -> str:
    return f"python -m sweeps test {plan.spec.name}/0 --out {plan.options.out}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


def _ends(share: Interval) -> str:
    return f"{share.low:.1%} to {share.high:.1%}"
