"""The earlier trials from which the sampler learns after the space was edited between two runs.

Each earlier drawn trial is drawn again from the edited space, with its own values. If the result is a point of the new
space, the sampler learns from the trial as a draw of the new space. The journal records this, so that later resumes
learn from the same trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.planning.edited_baselines import baseline_notes, changed_settings
from sweeps.search.asked_trial import in_words
from sweeps.search.drawn_as import Redrawn, as_redrawn, drawn_as, lesson_as_redrawn, redrawn
from sweeps.search.proposals import drawn_parameters, random_trials
from sweeps.search.samplers import DRAWS_FOR_NAMES
from sweeps.search.seeds import derive_seed
from sweeps.search.warm_start import LEARNING
from sweeps.space import Space
from sweeps.spec import SweepSpec
from tracking.record.events import Drawn, Lesson, TrialStarted
from tracking.record.history import SweepHistory

_SHOWN = 4
_KEPT_FROM_THE_START = (
    "sampler", "pruner", "max_epochs", "first_rung_epochs", "replicates", "folds", "reduction_factor", "later_factor",
    "loss_epochs",
)  # fmt: skip

Resolve = Callable[[TrialConfig], TrialConfig]


@dataclass(frozen=True)
class SpaceEdit:
    """The consequences of an edited space, for the journal and as text."""

    redrawn: Mapping[int, Drawn | None] | None
    """How the space draws the earlier trials. None if it draws them as before."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Before:
    """An earlier trial that the space drew or refused, and what the edited space draws from its values."""

    started: TrialStarted
    drawn: Redrawn
    why_no_lesson: str

    @property
    def now(self) -> Drawn | None:
        """What the journal records of it."""
        return None if self.why_no_lesson else Drawn(params=self.drawn.params, distributions=self.drawn.distributions)

    def is_drawn_as(self, known: TrialStarted | None) -> bool:
        """Whether the space draws it as `known`. Of a refused draw only the parameters are compared: it may have been
        refused because of the trials before it."""
        if known and not known.config:
            return self.drawn.params == known.params and self.drawn.distributions == known.distributions
        return _drawn(known) == self.now

    def changed_settings(self, resolve: Resolve) -> Iterator[str]:
        """Settings whose values the edited space changes; none if a parameter is new, since its value is random."""
        if self.why_no_lesson or self.drawn.missing or self.drawn.config is None:
            return
        yield from changed_settings(TrialConfig.model_validate(self.started.config), resolve(self.drawn.config))


def space_edit(
    space: Space, spec: SweepSpec, history: SweepHistory, asked: Space, resolve: Resolve
) -> SpaceEdit | None:
    """The consequences of an edit for earlier trials. None if the space is the same as when the sweep last ran.

    `space` is the space that is searched, `asked` that of the edited file, before the sweep's recorded options are
    applied.
    """
    drawn = [started for trial in history.trials.values() if _was_drawn(started := trial.started)]
    before = [_look_at(started, space, spec.seed) for started in drawn]
    now = {one.started.trial: one.now for one in before}
    known = [driver.space_sha256 for driver in history.drivers if driver.space_sha256]
    is_new_file = bool(known) and space.code_sha256 not in (None, known[-1])
    effective = {started.trial: as_redrawn(started, history.redrawn) for started in drawn}
    if all(one.is_drawn_as(effective[one.started.trial]) for one in before) and not is_new_file:
        return None
    lines: list[str] = []
    if drawn:
        lines += _parameters(space, spec.seed, filter(None, effective.values()))
    if whole := [one for one in before if one.started.config]:
        lines += [*_settings(whole, resolve), _learns_from(whole, space)]
    lines += _learns_from_others(history.started.lessons, space, spec.seed)
    lines += [*baseline_notes(space, asked, spec, history, resolve), *_kept(asked, spec)]
    head = (
        f"{space.name} was edited since this sweep last ran: its trials keep their settings, and new ones are drawn "
        "from the space as it is now"
    )
    recorded = {number: _drawn(started) for number, started in effective.items()}
    return SpaceEdit(None if now == recorded else now, (head, *lines))


def _was_drawn(started: TrialStarted) -> bool:
    """Whether the space drew the trial, refused the draw, or could have drawn the trial."""
    proposed = started.wanted is None and not started.is_further_member
    return started.baseline is None and (proposed or bool(started.params))


def _look_at(started: TrialStarted, space: Space, seed: int) -> _Before:
    config = TrialConfig.model_validate(started.config) if started.config else None
    if config and (same := drawn_as(space, config, started.params, started.trial)):
        return _Before(started, same, "")
    drawn = redrawn(space, started.params, derive_seed(seed, "edited", started.config_id), started.trial)
    if config:
        return _Before(started, drawn, drawn.why_no_lesson(started, space.sampler))
    is_refused_again = not (drawn.config or drawn.missing) and drawn.params == started.params
    return _Before(started, drawn, "" if is_refused_again else "the space no longer refuses it")


def _drawn(started: TrialStarted | None) -> Drawn | None:
    return Drawn(params=started.params, distributions=started.distributions) if started else None


def _parameters(space: Space, seed: int, before: Iterable[TrialStarted]) -> Iterator[str]:
    """Changed parameters, one line each."""
    was: dict[str, set[str]] = {}
    for started in before:
        for name, distribution in drawn_parameters([started]).items():
            was.setdefault(name, set()).add(in_words(distribution))
    now: dict[str, set[str]] = {}
    for trial in islice(random_trials(seed), DRAWS_FOR_NAMES):
        with suppress(InputError):  # a failed draw has parameters, too
            space.draw(trial)
        for name, distribution in trial.distributions.items():
            now.setdefault(name, set()).add(in_words(distribution))
    for name in sorted(was.keys() | now.keys()):
        if name not in now:
            yield f"{name}: no longer drawn"
        elif name not in was:
            yield f"{name}: drawn now, {min(now[name])}"
        elif was[name].isdisjoint(now[name]):
            yield f"{name}: {min(now[name])}; before, {min(was[name])}"


def _settings(before: Iterable[_Before], resolve: Resolve) -> Iterator[str]:
    """Settings of earlier trials to which the edited space gives other values, one line per setting and values."""
    having: dict[str, list[int]] = {}
    for one in before:
        for change in one.changed_settings(resolve):
            having.setdefault(change, []).append(one.started.trial)
    for change, numbers in sorted(having.items())[:_SHOWN]:
        plural = len(numbers) > 1
        who = f"trial{'s' * plural} {_listed(map(str, numbers))}"
        yield f"{change}: {who} {'have' if plural else 'has'} the old value, and the sampler still learns from that"
    if len(having) > _SHOWN:
        yield f"{len(having) - _SHOWN} more settings differ in the same way"


def _learns_from(before: list[_Before], space: Space) -> str:
    """A sentence about the trials from which the sampler learns."""
    if space.sampler not in LEARNING:
        return f"sampler {space.sampler} does not learn from trials"
    reasons = [f"{one.started.trial} ({one.why_no_lesson})" for one in before if one.why_no_lesson]
    without = f"; not from trial {_listed(reasons)}" if reasons else ""
    return (
        f"the sampler learns from {len(before) - len(reasons)} of {len(before)} trials that were drawn before{without}"
    )


def _learns_from_others(lessons: Sequence[Lesson], space: Space, seed: int) -> Iterator[str]:
    if lessons:
        still = sum(lesson_as_redrawn(space, lesson, seed) is not None for lesson in lessons)
        yield f"the sampler learns from {still} of {len(lessons)} trials of other sweeps"


def _kept(asked: Space, spec: SweepSpec) -> Iterator[str]:
    """Options that differ in the file, but that a sweep keeps from its start."""
    pairs = ((name, getattr(spec, name), getattr(asked, name)) for name in _KEPT_FROM_THE_START)
    others = [f"{name} {ours} (the file has {theirs})" for name, ours, theirs in pairs if theirs not in (None, ours)]
    if others:
        yield f"kept from the sweep's start: {', '.join(others)}; those of the file need a sweep with another --name"


def _listed(texts: Iterable[str]) -> str:
    found = list(texts)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
