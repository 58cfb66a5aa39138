"""What a new sweep takes from others: trials that its sampler learns from, and configurations that it proposes first.

The sampler can learn from a trial of another sweep if that trial was trained on the same faces and folds, with a net
that this space draws, from values in this space's ranges. From a sweep without such trials the best configurations are
proposed first. The new sweep's journal records what is taken, so a resume does not need the other sweeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean

from sweeps.errors import InputError
from sweeps.runs import open_sweep, readable_sweeps
from sweeps.search.drawn_as import Redrawn, drawn_from_other
from sweeps.space import Sampler, Space
from sweeps.spec import SweepSpec, recorded_spec
from tracking.errors import TrackingError
from tracking.record.best_epoch import best_epoch
from tracking.record.events import OBJECTIVE, Lesson, Offer, Told
from tracking.record.history import SweepHistory, TrialGroup, TrialHistory

AUTO = "auto"
_OFFERED = 3
_BEST_TAUGHT, _LATEST_TAUGHT = 50, 250
"""How many trials of another sweep the sampler learns from, as for its own."""
_REASONS_SHOWN = 3
_AS_IT_ENDED: dict[str, Told] = {"done": "value", "pruned": "pruned"}
LEARNING = ("tpe", "qmc-tpe", "gp", "cmaes", "nsgaii")


@dataclass(frozen=True)
class WarmStart:
    """What is taken, and one line of text per sweep."""

    lessons: tuple[Lesson, ...] = ()
    offers: tuple[Offer, ...] = ()
    notes: tuple[str, ...] = ()


NOTHING_TAKEN = WarmStart()


@dataclass(frozen=True)
class _Past:
    """A configuration that another sweep has trained, and what this space draws from its values."""

    source: str
    group: TrialGroup
    drawn: Redrawn

    def why_no_lesson(self, sampler: Sampler) -> str:
        """Why the sampler cannot learn from it; empty if it can."""
        return self.drawn.why_no_lesson(self.group.first.started, sampler)


def warm_start(space: Space, spec: SweepSpec, out: Path) -> WarmStart:
    """What the new sweep takes from the sweeps that `spec` names. Raises InputError with every fault."""
    names = spec.learn_from
    if not names:
        return NOTHING_TAKEN
    faults, taken = [], []
    if space.sampler == "grid":
        faults.append("--sampler grid trains every point and learns nothing; omit --from, or use another sampler")
    if AUTO in names and len(names) > 1:
        faults.append(f"{AUTO} already means all sweeps of the folder; give either {AUTO} or names")
    for name in names if AUTO not in names else ():
        try:
            taken.append(_from_sweep(name, space, spec, out))
        except (InputError, TrackingError) as error:
            faults.append(str(error))
    if faults:
        raise InputError(f"--from: {'; '.join(faults)}")
    if AUTO in names:
        return _from_all(space, spec, out)
    return WarmStart(
        tuple(lesson for one in taken for lesson in one.lessons),
        _distinct([offer for one in taken for offer in one.offers]),
        tuple(note for one in taken for note in one.notes),
    )


def _from_sweep(name: str, space: Space, spec: SweepSpec, out: Path) -> WarmStart:
    if name == spec.name:
        raise InputError(f"{name}: is this sweep itself; name another one, or omit --from")
    _, history = open_sweep(name, out)
    theirs = recorded_spec(history)
    if theirs.classes != spec.classes:
        raise InputError(
            f"{name}: has the classes {', '.join(theirs.classes)}, this sweep {', '.join(spec.classes)}; "
            "the results are not comparable"
        )
    past = list(_past(name, history, space, spec))
    if not past:
        raise InputError(f"{name}: has no finished trial that its sampler drew")
    if not any(one.drawn.params or one.drawn.faults for one in past):
        raise InputError(f"{name}: has no parameter in common with this space")
    left_out = {one.source: one.drawn.fault for one in past if one.drawn.fault}
    fitting = [one for one in past if not one.drawn.fault]
    why_no_lessons = _why_no_lessons(theirs, spec, space)
    if not why_no_lessons:
        lessons, refused = _lessons(fitting, space, spec)
        if lessons:
            words = f"the sampler learns from {len(lessons)} of {_trials(len(past))}"
            return WarmStart(lessons, notes=(f"{name}: {words}{_left_out(left_out | refused)}",))
        why_no_lessons = next(iter(refused.values()), "")
    offers = tuple(islice(_offers(fitting), _OFFERED))
    if not offers:
        raise InputError(f"{name}: nothing can be taken from it{_left_out(left_out)}")
    first = ", ".join(offer.source.rpartition("/")[2] for offer in offers)
    note = f"{name}: {why_no_lessons}; so the best are only proposed first (trial {first})"
    return WarmStart(offers=offers, notes=(note + _left_out(left_out),))


def _why_no_lessons(theirs: SweepSpec, spec: SweepSpec, space: Space) -> str:
    """Why the sampler cannot learn from any trial of a sweep; empty if it can."""
    if (theirs.fingerprint, theirs.folds) != (spec.fingerprint, spec.folds):
        return f"it was trained on other faces ({theirs.dataset}, fingerprint {theirs.fingerprint}{_folds(theirs)})"
    if len(space.objectives) > 1:
        return "with several objectives the sampler learns only from the sweep's own trials"
    return "" if space.sampler in LEARNING else f"--sampler {space.sampler} does not learn"


def _folds(spec: SweepSpec) -> str:
    return f", {spec.folds} folds" if spec.folds else ""


def _from_all(space: Space, spec: SweepSpec, out: Path) -> WarmStart:
    """The best configurations of all sweeps on the same faces, if this space draws all of their parameters."""
    found: list[tuple[float, Offer]] = []
    sweeps = 0
    for folder, history in readable_sweeps(out):
        try:
            theirs = recorded_spec(history)
        except InputError:
            continue  # written by another version
        same = (theirs.fingerprint, theirs.classes, theirs.folds) == (spec.fingerprint, spec.classes, spec.folds)
        if not same or theirs.name == spec.name:
            continue
        sweeps += 1
        whole = (
            one
            for one in _past(folder.root.name, history, space, spec)
            if not (one.drawn.missing or one.why_no_lesson(space.sampler))
        )
        found += [(one.group.mean, _offer(one)) for one in islice(whole, _OFFERED) if one.group.accuracies]
    found.sort(key=lambda pair: -pair[0])
    values = {offer.source: value for value, offer in found}
    offers = _distinct([offer for _, offer in found])[:_OFFERED]
    if not offers:
        return WarmStart(notes=(f"{AUTO}: none of {sweeps} sweeps on these faces has a trial that this space draws",))
    listed = ", ".join(f"{offer.source} ({values[offer.source]:.2%})" for offer in offers)
    return WarmStart(
        offers=offers, notes=(f"{AUTO}: proposed first are the best of {sweeps} sweeps on these faces: {listed}",)
    )


def _past(name: str, history: SweepHistory, space: Space, spec: SweepSpec) -> Iterator[_Past]:
    """The finished configurations that the sweep's sampler drew: best first, then those without an epoch."""
    ranked = history.ranked_groups()
    unranked = [group for group in history.groups() if not group.accuracies]
    for group in (*ranked, *unranked):
        started = group.first.started
        is_over = all(trial.is_over for trial in group.members.values())
        if not (started.params and started.config and is_over) or group.confirms is not None:
            continue
        source = f"{name}/{started.trial}"
        yield _Past(source, group, drawn_from_other(space, source, started.params, spec.seed))


def _lessons(fitting: Sequence[_Past], space: Space, spec: SweepSpec) -> tuple[tuple[Lesson, ...], dict[str, str]]:
    """The trials to learn from, oldest first, and why others are left out. Of many, the best and the latest."""
    refused: dict[str, str] = {}
    found: list[tuple[int, Lesson]] = []
    for one in fitting:
        lesson = _lesson(one, spec)
        if why_not := one.why_no_lesson(space.sampler):
            refused[one.source] = why_not
        elif lesson is None:
            refused[one.source] = "its own sampler learned nothing from it"
        else:
            found.append((one.group.first.number, lesson))
    found = found[:_BEST_TAUGHT] + sorted(found[_BEST_TAUGHT:], key=lambda pair: pair[0])[-_LATEST_TAUGHT:]
    return tuple(lesson for _, lesson in sorted(found, key=lambda pair: pair[0])), refused


def _lesson(one: _Past, spec: SweepSpec) -> Lesson | None:
    """What the sampler learns from a trial. None if its own sampler learned nothing from it either.

    A trial with fewer epochs than this sweep's trials counts as pruned at its end; of a longer one only the first
    epochs count.
    """
    first = one.group.first
    told = _told(first, spec.max_epochs)
    done = [member for member in one.group.members.values() if member.state == first.state]
    values = [best for member in done if (best := _best(member, spec.max_epochs)) is not None]
    if told == "nothing" or (told != "worst" and not values):
        return None
    curve = {epoch.epoch: epoch.metrics[OBJECTIVE] for epoch in first.epochs if epoch.epoch <= spec.max_epochs}
    return Lesson(
        source=one.source,
        told=told,
        value=fmean(values) if told == "value" else None,
        curve=curve if told != "worst" else {},
        params=one.drawn.params,
        distributions=one.drawn.distributions,
    )


def _told(trial: TrialHistory, max_epochs: int) -> Told:
    end = trial.end
    assert end is not None
    # Journals of format 1 do not record what their sampler learned.
    told = end.told or ("worst" if end.diverged else _AS_IT_ENDED.get(end.state, "nothing"))
    if told in ("worst", "nothing"):
        return told
    return "value" if trial.last_epoch >= max_epochs else "pruned"


def _best(trial: TrialHistory, max_epochs: int) -> float | None:
    epochs = [epoch for epoch in trial.epochs if epoch.epoch <= max_epochs]
    best = best_epoch(epochs, trial.started.config.get("keep_best", OBJECTIVE))
    return best.metrics[OBJECTIVE] if best else None


def _offers(fitting: Sequence[_Past]) -> Iterator[Offer]:
    yield from _distinct([_offer(one) for one in fitting if one.group.accuracies])


def _offer(one: _Past) -> Offer:
    return Offer(source=one.source, params=one.drawn.params)


def _distinct(offers: Sequence[Offer]) -> tuple[Offer, ...]:
    return tuple(
        offer for place, offer in enumerate(offers) if all(offer.params != one.params for one in offers[:place])
    )


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"


def _left_out(reasons: dict[str, str]) -> str:
    if not reasons:
        return ""
    listed = [f"{source} ({reason})" for source, reason in list(reasons.items())[:_REASONS_SHOWN]]
    more = [f"{len(reasons) - _REASONS_SHOWN} more"] if len(reasons) > _REASONS_SHOWN else []
    return f"; {len(reasons)} left out: {', '.join(listed + more)}"
