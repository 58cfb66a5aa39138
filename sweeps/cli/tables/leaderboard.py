"""The table at the end of a sweep: best epochs, intervals, and differences to the best baseline."""

from __future__ import annotations

import time

from rich.box import HEAVY_HEAD
from rich.table import Table
from rich.text import Text

from fer_models.configs.transfer_config import PUBLISHED
from sweeps.cli.progress import trial_name
from sweeps.run_kinds import Ensemble, SvmHead, kind_of
from sweeps.spec import SweepSpec
from tracking.flatten import flatten
from tracking.metrics.chosen import choice_of
from tracking.metrics.front import scored_trials
from tracking.metrics.groups import confirmation_of, difference_of, mean_interval
from tracking.metrics.scores import wilson_interval
from tracking.metrics.winner import winner_of
from tracking.record.events import OBJECTIVE, Act
from tracking.record.history import SweepHistory, TrialGroup, TrialHistory
from tracking.record.layout import SweepFolder
from tracking.record.objectives import in_words, objectives_of
from tracking.record.predictions import best_predictions

_SHOWN = 15
_WIDE = 120
"""Columns of a terminal in which the table has its frame and the settings."""
_FAILURES_SHOWN = 5
_ACTS_SHOWN = 10


def leaderboard(history: SweepHistory, spec: SweepSpec, folder: SweepFolder, width: int = _WIDE) -> Table:
    """Trials ranked by their best epoch, with differences to the best baseline, paired by image where possible.

    `width` is that of the terminal; a narrow one has no room for the settings.
    """
    ranked = history.ranked_groups()
    best_baseline = next(
        (one for one in ranked if one.first.started.baseline and not history.is_short(one.first)), None
    )
    table = Table(
        title=Text(f"{spec.name}: best epoch of each trial on {spec.dataset}, {spec.val_title}"),
        caption=Text(_caption(spec, history, folder, best_baseline, len(ranked))),
        header_style="bold",
        box=HEAVY_HEAD if width >= _WIDE else None,
        padding=(0, 1) if width >= _WIDE else (0, 1, 0, 0),
    )
    headings = ["", "trial", "state", "best epoch", "val_accuracy", "95 % interval", "to the best baseline", "settings"]
    columns = headings if width >= _WIDE else headings[:-1]
    for heading in columns:
        table.add_column(
            heading,
            justify="left" if heading in ("trial", "state", "settings") else "right",
            no_wrap=heading in ("val_accuracy", "95 % interval", "to the best baseline"),
        )

    def add(*cells: str) -> None:
        table.add_row(*cells[: len(columns)])

    for rank, group in enumerate(ranked[:_SHOWN], start=1):
        short = history.length_note(group.first) if history.is_short(group.first) else ""
        gap = f"short: {short}" if short else _difference(group, best_baseline, folder)
        if group.size > 1:
            add(str(rank), *_group_row(group, gap))
        for trial in group.ranked():
            own = gap if group.size == 1 else ""
            add(str(rank) if group.size == 1 else "", *_row(trial, folder, own))
    for trial in history.trials.values():
        if trial.best_accuracy is None:
            add("", trial_name(trial), trial.state, "0", "", "", "", _settings(trial))
    return table


def pareto_table(history: SweepHistory) -> Table | None:
    """The trials on the Pareto front, the most accurate first. None if there are none, or only one objective."""
    scored = scored_trials(history)
    front = [one for one in scored if one.is_on_front]
    if not front:
        return None
    objectives = objectives_of(history.spec)
    more = f"; the most accurate {_SHOWN} of {len(front)}" if len(front) > _SHOWN else ""
    table = Table(
        title=Text(
            f"Pareto front, {len(front)} of {len(scored)} trials: none is as good in all objectives and better in one"
        ),
        caption=Text(f"--objective {','.join(objectives)}{more}"),
        header_style="bold",
    )
    for heading in ("trial", "state", *objectives):
        table.add_column(heading, justify="right" if heading in objectives else "left")
    for one in front[:_SHOWN]:
        values = [in_words(name, value) for name, value in zip(objectives, one.values, strict=True)]
        table.add_row(trial_name(one.trial), one.trial.state, *values)
    return table


def failures(history: SweepHistory) -> list[str]:
    """Why trials failed, one line per trial, at most the first five."""
    ends = [trial.end for _, trial in sorted(history.trials.items()) if trial.end and trial.end.state == "failed"]
    lines = [f"trial {end.trial}: {end.reason}" for end in ends[:_FAILURES_SHOWN]]
    more = len(ends) - len(lines)
    return lines + ([f"and {more} more trials; their reasons are in the journal"] if more else [])


def acts(history: SweepHistory) -> list[str]:
    """The last ten acts on the sweep and their answers, the latest last."""
    lines = []
    for act in history.acts[-_ACTS_SHOWN:]:
        when = time.strftime("%H:%M:%S", time.localtime(act.asked_ms / 1000))
        lines.append(f"{'refused' if act.refused else 'act'}: {when} {act.who}: {_asked(act)}: {act.answer}")
    return lines


def _asked(act: Act) -> str:
    """The act as its command was typed."""
    arguments = dict(act.arguments)
    trial, settings = arguments.pop("trial", None), arguments.pop("settings", ())
    named = [f"{name}={value}" for name, value in arguments.items()]
    return " ".join([act.verb, *([] if trial is None else [str(trial)]), *settings, *named])


def _group_row(group: TrialGroup, gap: str) -> tuple[str, ...]:
    interval = mean_interval(list(group.done.values()))
    place = group.first.started.group
    confirmed = f"trial {place.confirms} confirmed: " if place and place.confirms is not None else ""
    return (
        f"{confirmed}mean of {len(group.averaged)}",
        "done" if group.is_whole else f"{len(group.done)} of {group.size} done",
        "",
        f"{group.mean:.2%}",
        f"{interval.low:.1%} to {interval.high:.1%}" if interval else "",
        gap,
        _settings(group.first),
    )


def _row(trial: TrialHistory, folder: SweepFolder, gap: str) -> tuple[str, ...]:
    best = trial.best_epoch()
    assert best is not None
    mine = best_predictions(folder.trial(trial.number), trial)
    interval = wilson_interval(int(mine.is_right.sum()), len(mine.labels)) if mine else None
    return (
        trial_name(trial),
        trial.state,
        f"{best.epoch} of {trial.last_epoch}",
        f"{best.metrics[OBJECTIVE]:.2%}",
        f"{interval.low:.1%} to {interval.high:.1%}" if interval else "",
        gap,
        _settings(trial),
    )


def _difference(group: TrialGroup, best_baseline: TrialGroup | None, folder: SweepFolder) -> str:
    if best_baseline is None:
        return ""
    if group is best_baseline:
        return "best baseline"
    gap = difference_of(folder, group, best_baseline)
    return "" if gap is None else f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"


def _settings(trial: TrialHistory) -> str:
    config = trial.started.config
    match kind_of(config):
        case Ensemble(members=members):
            return ", ".join(f"{name} {weight:.2f}" for name, weight in members.items())
        case SvmHead() as svm:
            return f"{svm.kernel} SVM, C {svm.c:g}, on {svm.member}"
    if not config:
        return ", ".join(f"{name} {_short(value)}" for name, value in trial.started.params.items())
    shown = [
        f"{config['recipe']['optimizer']} lr {config['recipe']['lr']:.3g}",
        f"batch {config['recipe']['batch_size']}",
    ]
    shown += [value for name, value in flatten(config["net"]).items() if name == "norm"]
    shown.append(config["recipe"]["lr_policy"])
    if (weights := config.get("transfer", {}).get("weights", "none")) != "none":
        shown.append(f"from {PUBLISHED.get(weights, weights)}")
    if (teachers := config["recipe"].get("distill", "none")) != "none":
        shown.append(f"taught by {teachers.replace(',', ', ')}")
    return ", ".join(shown)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _caption(
    spec: SweepSpec, history: SweepHistory, folder: SweepFolder, best_baseline: TrialGroup | None, scored: int
) -> str:
    reported = [f"{name}: {text}" for name, text in spec.baselines.items() if text]
    lines = [f"reported: {'; '.join(reported)}"] if reported else []
    whole = [trial for trial in history.trials.values() if trial.started.baseline and not history.is_short(trial)]
    notes = [f"{trial.started.baseline}: {note}" for trial in whole if (note := history.length_note(trial))]
    lines += dict.fromkeys(notes)
    if any(history.is_short(trial) for trial in history.trials.values()):
        lines.append("a baseline with fewer epochs is not comparable: no difference to it is given")
    if best_baseline:
        lines.append(
            f"differences in points, with 95 % intervals paired by image, to {best_baseline.first.started.baseline}"
        )
    if spec.members > 1 or spec.confirm:
        lines.append(
            f"intervals: of a mean, Student's t over its {'folds' if spec.folds else 'seeds'}; of a trial, over faces"
        )
    if confirmation := confirmation_of(history):
        lines.append(str(confirmation))
    if scored > 1 and (choice := choice_of(folder, history)):
        lines.append(str(choice))
    if scored > 1 and (winner := winner_of(folder, history)) and winner.ties:
        lines.append(str(winner))
    if scored > _SHOWN:
        lines.append(f"the best {_SHOWN} of {scored}")
    return "\n".join(lines)
