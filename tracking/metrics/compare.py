"""Compares two or more nets on the same faces: settings, metrics, and whether differences are beyond chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fer_common.frozen import Finite
from tracking.errors import TrackingError
from tracking.metrics.compare_sweeps import SweepSummary
from tracking.metrics.scores import Interval
from tracking.metrics.significance import holm, mcnemar_mid_p, paired_bootstrap
from tracking.metrics.summary import ScoreSummary, summary
from tracking.record.predictions import Predictions

_DISAGREEMENTS = 60


@dataclass(frozen=True)
class ComparedRun:
    """One net to compare. Without `answers` (predictions) only its `metrics` can be compared.

    `settings` are flat (dotted names), `leaked` [n] marks faces that are also in the training split, `split` is its
    title ("PublicTest (val)").
    """

    name: str
    settings: Mapping[str, str]
    metrics: Mapping[str, float]
    dataset: str
    fingerprint: str
    split: str
    classes: tuple[str, ...]
    synthetic: bool
    answers: Predictions | None = None
    leaked: NDArray[np.bool_] | None = None


class ClassDifference(Finite):
    """F1 of one class, second minus first, with a 95 % interval (not corrected for the number of classes)."""

    name: str
    f1: Interval
    verdict: Literal["won", "lost", "even"]
    """`won` if the whole interval is above 0, so that the second net is better; `lost` if it is below; else `even`."""


class Pair(Finite):
    """The second net compared with the first, on the same faces; intervals are paired bootstrap, 95 %."""

    first: str
    second: str
    differences: dict[str, Interval]
    only_first_right: int
    only_second_right: int
    p: float
    """McNemar's mid-p."""
    p_holm: float
    """The p-value, corrected for the number of pairs in the comparison."""
    classes: tuple[ClassDifference, ...]

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the corrected p-value is below .05."""
        return self.p_holm < 0.05


class Said(Finite):
    """The prediction of one net for one face."""

    prediction: str
    confidence: float
    of_label: float
    """The predicted probability of the face's label."""


class Disagreement(Finite):
    """A face for which predictions differ. `face` is its index in the split, predictions are in the nets' order."""

    face: int
    label: str
    leaked: bool
    said: tuple[Said, ...]


class Comparison(Finite):
    """A whole comparison. Unless all nets have predictions, `n` is None and only settings and metrics are compared."""

    names: tuple[str, ...]
    dataset: str
    fingerprint: str
    split: str
    synthetic: bool
    classes: tuple[str, ...]
    n: int | None
    n_leaked: int
    notes: tuple[str, ...]
    settings: dict[str, tuple[str | None, ...]]
    """Settings that differ, with values in the nets' order. None if a net lacks the setting."""
    metrics: dict[str, tuple[float | None, ...]]
    summaries: tuple[ScoreSummary, ...]
    pairs: tuple[Pair, ...]
    disagreements: tuple[Disagreement, ...]
    disagreed: int
    """Number of faces on which predictions differ."""
    stands_for: dict[str, str] = Field(default={})
    """Name of a compared sweep → its best trial, which represents it."""
    sweeps: tuple[SweepSummary, ...] = ()
    """Summaries of whole sweeps, if there are two or more."""

    def to_json(self) -> str:
        """The comparison as JSON."""
        return self.model_dump_json(indent=2)


def compare(runs: Sequence[ComparedRun], *, numbers_only: bool = False) -> Comparison:
    """Compare two or more nets. The bootstrap's seed is fixed: the same nets give the same intervals.

    Nets with predictions of different faces are refused, unless `numbers_only` compares only settings and metrics.

    Raises:
        TrackingError: fewer than two nets, equal names, or predictions of different faces.
    """
    _check_names(runs)
    answers = [run.answers for run in runs]
    there = [answer for answer in answers if answer is not None]
    if numbers_only or len(there) < len(runs):
        return _numbers(runs, numbers_only)
    _check_same_faces(runs, there)
    labels, leaked = there[0].labels, runs[0].leaked
    pairs = _pairs([run.name for run in runs], there, runs[0].classes, np.random.default_rng(0))
    disagreements, disagreed = _disagreements(there, runs[0].classes, leaked)
    return Comparison(
        **_common(runs),
        n=labels.size,
        n_leaked=int(leaked.sum()) if leaked is not None else 0,
        notes=(),
        summaries=tuple(summary(labels, answer.probabilities, runs[0].classes, leaked) for answer in there),
        pairs=pairs,
        disagreements=disagreements,
        disagreed=disagreed,
    )


def _check_names(runs: Sequence[ComparedRun]) -> None:
    names = [run.name for run in runs]
    if len(names) < 2:
        raise TrackingError(f"{len(names)} to compare: expected at least two")
    if len(set(names)) < len(names):
        raise TrackingError(f"equal names among {', '.join(names)}: give each run a different name")


def _check_same_faces(runs: Sequence[ComparedRun], answers: Sequence[Predictions]) -> None:
    first = runs[0]
    for run, answer in zip(runs[1:], answers[1:], strict=True):
        same = (run.fingerprint, run.split, run.classes) == (
            first.fingerprint, first.split, first.classes,
        )  # fmt: skip
        if not same or not np.array_equal(answer.labels, answers[0].labels):
            raise TrackingError(
                f"{first.name} was evaluated on {_data(first)}, {run.name} on {_data(run)}: predictions can "
                "only be compared on the same faces; use --numbers-only, or choose runs on the same data"
            )


def _data(run: ComparedRun) -> str:
    n = len(run.answers.labels) if run.answers else 0
    return f"{run.dataset} {run.split}, n = {n:,} (fingerprint {run.fingerprint})"


def _numbers(runs: Sequence[ComparedRun], asked: bool) -> Comparison:
    without = [run.name for run in runs if run.answers is None]
    notes = (
        [] if asked else [f"no predictions of {', '.join(without)} (not trained, or deleted): no intervals, no test"]
    )
    if len({run.fingerprint for run in runs}) > 1:
        data = "; ".join(f"{run.name}: {_data(run)}" for run in runs)
        notes.append(f"evaluated on different faces, so the numbers do not rank the nets ({data})")
    return Comparison(
        **_common(runs),
        n=None,
        n_leaked=0,
        notes=tuple(notes),
        summaries=(),
        pairs=(),
        disagreements=(),
        disagreed=0,
    )


def _common(runs: Sequence[ComparedRun]) -> dict[str, object]:
    first = runs[0]

    def shared(values: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    return {
        "names": tuple(run.name for run in runs),
        "dataset": shared([run.dataset for run in runs]),
        "fingerprint": shared([run.fingerprint for run in runs]),
        "split": shared([run.split for run in runs]),
        "synthetic": any(run.synthetic for run in runs),
        "classes": first.classes,
        "settings": _differing_settings(runs),
        "metrics": {
            name: tuple(run.metrics.get(name) for run in runs)
            for name in dict.fromkeys(name for run in runs for name in run.metrics)
        },
    }


def _differing_settings(runs: Sequence[ComparedRun]) -> dict[str, tuple[str | None, ...]]:
    names = dict.fromkeys(name for run in runs for name in run.settings)
    values = {name: tuple(run.settings.get(name) for run in runs) for name in names}
    return {name: row for name, row in values.items() if len(set(row)) > 1}


def _pairs(
    names: Sequence[str], answers: Sequence[Predictions], classes: Sequence[str], generator: np.random.Generator
) -> tuple[Pair, ...]:
    indices = list(combinations(range(len(names)), 2))
    right = [answer.probabilities.argmax(axis=1) == answer.labels for answer in answers]
    only = [(int((right[a] & ~right[b]).sum()), int((~right[a] & right[b]).sum())) for a, b in indices]
    p_values = [mcnemar_mid_p(*counts) for counts in only]
    pairs = []
    for (a, b), counts, p, p_holm in zip(indices, only, p_values, holm(p_values), strict=True):
        found = paired_bootstrap(answers[a].labels, answers[b].probabilities, answers[a].probabilities, generator)
        pairs.append(
            Pair(
                first=names[a],
                second=names[b],
                differences=found.metrics,
                only_first_right=counts[0],
                only_second_right=counts[1],
                p=p,
                p_holm=p_holm,
                classes=tuple(
                    ClassDifference(name=name, f1=f1, verdict=_verdict(f1))
                    for name, f1 in zip(classes, found.class_f1, strict=True)
                ),
            )
        )
    return tuple(pairs)


def _verdict(difference: Interval) -> Literal["won", "lost", "even"]:
    if difference.low > 0:
        return "won"
    return "lost" if difference.high < 0 else "even"


def _disagreements(
    answers: Sequence[Predictions], classes: Sequence[str], leaked: NDArray[np.bool_] | None
) -> tuple[tuple[Disagreement, ...], int]:
    """Of the faces on which predictions differ, those whose label's probability differs most."""
    labels = answers[0].labels
    probabilities = np.stack([answer.probabilities for answer in answers])
    predictions = probabilities.argmax(axis=2)
    of_label = np.take_along_axis(probabilities, labels[None, :, None], axis=2)[..., 0]
    differ = np.flatnonzero((predictions != predictions[0]).any(axis=0))
    spread = np.ptp(of_label[:, differ], axis=0)
    order = differ[np.argsort(-spread, kind="stable")][:_DISAGREEMENTS]
    found = tuple(
        Disagreement(
            face=int(face),
            label=classes[labels[face]],
            leaked=bool(leaked is not None and leaked[face]),
            said=tuple(
                Said(
                    prediction=classes[predictions[net, face]],
                    confidence=float(probabilities[net, face].max()),
                    of_label=float(of_label[net, face]),
                )
                for net in range(len(answers))
            ),
        )
        for face in order
    )
    return found, differ.size
