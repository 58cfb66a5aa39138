"""The report of a sweep, on one page: the question, the results, their intervals, and the commands that repeat it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tracking.figures.parts import svg
from tracking.figures.score_figures import mistakes_figure, score_figures, surest_mistakes
from tracking.figures.trial_figures import confusion_figure
from tracking.flatten import flatten
from tracking.metrics.chosen import choice_of
from tracking.metrics.compare import ComparedRun, Comparison, compare
from tracking.metrics.front import pareto_front
from tracking.metrics.groups import confirmation_of
from tracking.metrics.scores import Interval, paired_difference_interval
from tracking.metrics.summary import ScoreSummary, data_name, summary
from tracking.metrics.winner import winner_of
from tracking.pages.compare_page import comparison_figures
from tracking.pages.page import render, sentence, where
from tracking.pages.report_rows import Row, group_rows, ranked_rows, reached
from tracking.pages.sweep_pictures import sweep_pictures
from tracking.record.events import OBJECTIVE
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder
from tracking.record.objectives import in_words, objectives_of
from tracking.record.predictions import Predictions
from tracking.record.spans import trial_minutes

_MISTAKES = 24


@dataclass(frozen=True)
class DataFacts:
    """The faces of a sweep. `split` is the one that selected the best epochs, by its displayed name, and `n` its size.

    `sizes` has the size of every split; `leaked` [n] marks faces of `split` that are also in the training split.
    """

    dataset: str
    fingerprint: str
    split: str
    n: int
    sizes: Mapping[str, int]
    classes: tuple[str, ...]
    synthetic: bool
    notes: tuple[str, ...] = ()
    leaked: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class SweepReport:
    """The content of a report.

    `question` is one sentence, `asked` its settings by name; `published` maps a baseline's name to
    its report's result; `commands` maps a purpose to its command; `parameters` maps a trial to
    its net's number of parameters; `importances` maps a setting to the share of the objective's variance it explains;
    `caution` says why its numbers are too high, if they are.
    """

    history: SweepHistory
    folder: SweepFolder
    data: DataFacts
    question: str
    asked: Mapping[str, str]
    published: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[int, int] = field(default_factory=dict)
    importances: Mapping[str, Interval] = field(default_factory=dict)
    caution: str | None = None


def report_page(report: SweepReport, faces: NDArray[np.uint8] | None = None) -> str:
    """One self-contained HTML page.

    `faces` are all faces of the split that selected, [n, height, width] or [n, height, width, 3], for the sheet of
    mistakes. Without them there is no sheet.
    """
    history, data = report.history, report.data
    rows = ranked_rows(history, data.n)
    winner = winner_of(report.folder, history)
    best = next((row for row in rows if row.rank and (winner is None or row.trial.number == winner.trial)), None)
    baselines = [row for row in rows if row.rank and row.trial.started.baseline]
    best_baseline = next((row for row in baselines if not history.is_short(row.trial)), None)
    kept = {row.name: row.predictions(report.folder) for row in _compared(rows, best, best_baseline, history)}
    answers = {name: found for name, found in kept.items() if found}
    mine = answers.get(best.name) if best else None
    scores = summary(mine.labels, mine.probabilities, data.classes, data.leaked) if mine else None
    comparison = _comparison(report, _compared(rows, best, best_baseline, history), answers)
    return render(
        "report.html",
        r=report,
        pictures={
            one.name: (one.title, one.caption, Markup(svg(one.figure)))
            for one in sweep_pictures(history, rows, report.parameters, report.importances)
        },
        data=data_name(data.dataset, data.synthetic),
        where=where(data.dataset, data.split, data.n, data.synthetic),
        state_note=_state_note(history),
        best=best,
        winner=winner,
        best_baseline=best_baseline,
        gap_to_baseline=_gap(best, best_baseline, answers),
        choice=choice_of(report.folder, history),
        leak_free=scores.leak_free.accuracy if scores and scores.leak_free else None,
        leak_free_n=scores.leak_free.n if scores and scores.leak_free else 0,
        states=_states(history),
        hours=_hours(history),
        ranked=rows,
        groups=group_rows(history),
        objectives=objectives_of(history.spec),
        front=[
            (
                one.trial,
                [in_words(name, value) for name, value in zip(objectives_of(history.spec), one.values, strict=True)],
            )
            for one in pareto_front(history)
        ],
        confirmation=confirmation_of(history),
        reached={row.trial.started.baseline: _reached(row, history) for row in rows if row.trial.started.baseline},
        scores=scores,
        comparison=comparison,
        sentences=[sentence(pair) for pair in comparison.pairs] if comparison else [],
        figures=_figures(report, mine, scores, comparison, faces),
        begun=datetime.fromtimestamp(history.started.time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _reached(row: Row, history: SweepHistory) -> str:
    note = history.length_note(row.trial)
    return f"{reached(row)} ({note})" if note else reached(row)


def _compared(rows: Sequence[Row], best: Row | None, best_baseline: Row | None, history: SweepHistory) -> list[Row]:
    """The best trial, the best baseline and the runner-up, each once. Baselines with too few epochs are left out."""
    if best is None:
        return []
    ranked = [row for row in rows if row.rank and row.trial.started.fold == best.trial.started.fold]
    chosen = [best, *(row for row in ranked if row is not best and not history.is_short(row.trial))][:2]
    return [*chosen, best_baseline] if best_baseline in ranked and best_baseline not in chosen else chosen


def _gap(best: Row | None, baseline: Row | None, answers: Mapping[str, Predictions]) -> Interval | None:
    if best is None or baseline is None or best is baseline or not {best.name, baseline.name} <= answers.keys():
        return None
    mine, theirs = (answers[row.name].probabilities.argmax(axis=1) for row in (best, baseline))
    return paired_difference_interval(answers[best.name].labels, mine, theirs)


def _comparison(report: SweepReport, rows: Sequence[Row], answers: Mapping[str, Predictions]) -> Comparison | None:
    data = report.data
    # The most important pair is first: the best against the best baseline, otherwise against the runner-up.
    compared = [row for row in rows if row.name in answers]
    there = [*compared[-1:], *compared[:-1]]
    if len(there) < 2:
        return None
    runs = [
        ComparedRun(
            name=row.name,
            settings=flatten(row.trial.started.config),
            metrics={OBJECTIVE: row.accuracy or 0.0},
            dataset=data.dataset,
            fingerprint=data.fingerprint,
            split=data.split,
            classes=data.classes,
            synthetic=data.synthetic,
            answers=answers[row.name],
            leaked=data.leaked,
        )
        for row in there
    ]
    return compare(runs)


def _figures(
    report: SweepReport,
    mine: Predictions | None,
    scores: ScoreSummary | None,
    comparison: Comparison | None,
    faces: NDArray[np.uint8] | None,
) -> dict[str, object]:
    figures: dict[str, Figure] = {}
    if mine is not None and scores is not None:
        classes = report.data.classes
        figures |= score_figures(mine.labels, mine.probabilities, scores, classes, "")
        figures["confusion"] = confusion_figure(np.array(scores.full.confusion, dtype=np.int64), classes, "")
        if faces is not None:
            mistakes = surest_mistakes(mine.labels, mine.probabilities, _MISTAKES)
            taken = np.asarray(faces[mistakes.faces])
            figures["mistakes"] = mistakes_figure(taken, mistakes, classes, "")
    if comparison is not None:
        figures["matrices"] = comparison_figures(comparison)[0]
    return {"mistakes": None} | {name: Markup(svg(figure)) for name, figure in figures.items()}


def _states(history: SweepHistory) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(history.states.items()))


def _hours(history: SweepHistory) -> str:
    minutes = sum(trial_minutes(trial) for trial in history.trials.values())
    return f"{minutes / 60:.1f} worker hours" if minutes >= 90 else f"{minutes:.0f} worker minutes"


def _state_note(history: SweepHistory) -> str:
    if history.finished:
        return ""
    reason = f" ({history.stopped.reason})" if history.stopped else ""
    return f"This sweep is not finished{reason}: {_states(history)} so far."
