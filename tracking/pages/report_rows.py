"""The trials of a sweep as rows of a table, ranked by their best epoch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tracking.flatten import flatten
from tracking.metrics.groups import mean_interval
from tracking.metrics.scores import Interval, wilson_interval
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.layout import SweepFolder
from tracking.record.predictions import Predictions, best_predictions
from tracking.record.spans import trial_minutes


@dataclass(frozen=True)
class Row:
    """A trial in the report's table. Without a finished epoch `rank` is 0 and the numbers are None."""

    trial: TrialHistory
    rank: int
    name: str
    state: str
    reason: str
    best_epoch: int
    epochs: int
    accuracy: float | None
    low: float | None
    high: float | None
    minutes: float
    settings: str

    def predictions(self, folder: SweepFolder) -> Predictions | None:
        """The predictions of its best epoch, if they are on disk."""
        return best_predictions(folder.trial(self.trial.number), self.trial)


def ranked_rows(history: SweepHistory, n: int) -> list[Row]:
    """All trials, ranked by their best epoch. `n` is the size of the selecting split, for the intervals; 0 for none."""
    trials = list(history.trials.values())
    ranked = [*history.ranked(), *(trial for trial in trials if trial.best_accuracy is None)]
    varied, reasons = _varied(trials), history.reasons(trials)
    rows = []
    for rank, trial in enumerate(ranked, start=1):
        accuracy, best = trial.best_accuracy, trial.best_epoch()
        interval = wilson_interval(round(accuracy * n), n) if accuracy is not None and n else None
        rows.append(
            Row(
                trial=trial,
                rank=rank if accuracy is not None else 0,
                name=_name(trial, history.length_note(trial)),
                state=trial.state,
                reason=reasons[trial.number],
                best_epoch=best.epoch if best else 0,
                epochs=trial.last_epoch,
                accuracy=accuracy,
                low=interval.low if interval else None,
                high=interval.high if interval else None,
                minutes=trial_minutes(trial),
                settings=_settings(trial, varied),
            )
        )
    return rows


@dataclass(frozen=True)
class GroupRow:
    """A group in the report's table."""

    rank: int
    name: str
    done: str
    mean: float
    interval: Interval | None
    settings: str


def group_rows(history: SweepHistory) -> list[GroupRow]:
    """The groups of more than one trial, the best mean first."""
    varied = _varied(list(history.trials.values()))
    rows = []
    for rank, group in enumerate(history.ranked_groups(), start=1):
        if group.size == 1:
            continue
        first = group.first.started
        numbers = ", ".join(str(one.number) for _, one in sorted(group.members.items()))
        rows.append(
            GroupRow(
                rank=rank,
                name=(f"trial {group.confirms} confirmed: " if group.confirms is not None else "")
                + (f"{first.baseline} (trials {numbers})" if first.baseline else f"trials {numbers}"),
                done=f"{len(group.done)} of {group.size}",
                mean=group.mean,
                interval=mean_interval(list(group.done.values())),
                settings=_settings(group.first, varied),
            )
        )
    return rows


def _name(trial: TrialHistory, note: str) -> str:
    number = f"trial {trial.number}"
    where = f"{number}; {note}" if note else number
    return f"{trial.started.baseline} ({where})" if trial.started.baseline else number


def _settings(trial: TrialHistory, varied: Mapping[str, str]) -> str:
    """Its values of the searched settings. For a draw without a configuration, the drawn values."""
    content = flatten(trial.started.config)
    drawn = {short: content[name] for name, short in varied.items() if name in content}
    settings = drawn if content else flatten(trial.started.params)
    return ", ".join(f"{name} {_short(value)}" for name, value in settings.items())


def _varied(trials: Sequence[TrialHistory]) -> dict[str, str]:
    """The searched settings in which the proposals differ, and their short names."""
    seen: dict[str, set[str]] = {}
    for trial in trials:
        if not trial.started.baseline:
            for name, value in flatten(trial.started.config).items():
                seen.setdefault(name, set()).add(value)
    varied = [name for name, values in seen.items() if len(values) > 1 and name != "replicate"]
    last = Counter(name.rpartition(".")[2] for name in varied)
    return {name: short if last[short := name.rpartition(".")[2]] == 1 else name for name in varied}


def _short(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value


def reached(row: Row) -> str:
    """The best accuracy in words."""
    return f"{100 * row.accuracy:.2f} %" if row.accuracy is not None else "no epoch finished"
