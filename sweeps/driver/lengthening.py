"""Decides which trials of a sweep continue when its trials get more epochs, and from which epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fer_models.training.schedule import lasting_epochs, what_spans
from sweeps.config import TrialConfig
from sweeps.driver.kept_weights import needed_weights
from sweeps.errors import InputError
from tracking.record.events import Lengthened, TrialStarted, Wanted
from tracking.record.history import SweepHistory, TrialGroup, TrialHistory
from tracking.record.layout import SweepFolder
from tracking.record.training_states import keep_state, state_epoch

_NAMED = 6
_GIVEN_UP = "given up"
_SPANS = " spans the run"
_NOT_KEPT = "no state from before the cooldown; the best trials keep theirs (--keep)"
_OTHERS_CANNOT = "another trial of its group cannot"


def lengthen(
    folder: SweepFolder, history: SweepHistory, epochs: int, *, more_to_start: bool
) -> tuple[tuple[Lengthened, ...], str]:
    """The trials that continue to `epochs`, and a sentence about them and the others; nothing is written.

    Raises InputError if no trial would get more epochs.
    """
    if any(trial.is_confirming for trial in history.trials.values()):
        raise InputError(
            "its best trials were confirmed at the old length; start a new sweep with --epochs and --confirm instead"
        )
    name = folder.root.name
    needed = {number: why for (sweep, number), why in needed_weights(folder.root.parent).items() if sweep == name}
    answers = dict(answer for group in history.groups() for answer in _of_group(folder, group, epochs, needed))
    changes = tuple(answer for answer in answers.values() if isinstance(answer, Lengthened))
    reasons = {answer for answer in answers.values() if isinstance(answer, str)} - {_GIVEN_UP}
    if reasons and not changes and all(reason.endswith(_SPANS) for reason in reasons):
        raise InputError(
            f"{' and '.join(sorted(reasons))}: a longer run has another learning rate in each epoch; "
            "only a sweep with --set lr_policy=wsd can be extended"
        )
    if not changes and not more_to_start:
        raise InputError(f"no trial can continue: {_sentence(answers)}")
    waiting = [(one, _why_not_longer(one, history.trials[one.source].started)) for one in history.wanted]
    staying = [f"not the {one.verb} of trial {one.source}: {why}" for one, why in waiting if why]
    return changes, "; ".join([_sentence(answers), *staying])


def keep_lasting_states(folder: SweepFolder, history: SweepHistory, changes: Iterable[Lengthened]) -> None:
    """Keep the states from which lengthened trials continue, until a worker takes them."""
    for change in changes:
        kept = folder.trial(change.trial).lasting
        if change.epoch == _lasting(history.trials[change.trial]):
            keep_state(kept, kept.last, folder.lengthened(change.trial))


def epochs_of(wanted: Wanted, source: TrialStarted, epochs: int) -> int:
    """The length of a trial that a person asked for, if it starts in a sweep of `epochs` epochs."""
    if _why_not_longer(wanted, source):
        return wanted.epochs
    return epochs if wanted.verb == "try" else min(epochs, source.report_epochs or epochs)


def _why_not_longer(wanted: Wanted, source: TrialStarted) -> str | None:
    """Why a trial that a person asked for keeps its length when the sweep gets more epochs. None if it does not."""
    if wanted.verb == "retry" and source.group:
        return "the others of its group have their length"
    if not wanted.epoch:
        return None
    config = TrialConfig.model_validate(wanted.config)
    if setting := what_spans(config.recipe, config.transfer):
        return f"{setting}{_SPANS}"
    is_before_cooldown = wanted.epoch <= lasting_epochs(config.recipe, config.transfer, wanted.epochs)
    return None if is_before_cooldown else "its state is from the cooldown"


def _of_group(
    folder: SweepFolder, group: TrialGroup, epochs: int, needed: Mapping[int, str]
) -> Iterator[tuple[int, Lengthened | str]]:
    """As `_of_trial` for the trials of a group, which continue together or not at all."""
    answers = {trial.number: _of_trial(folder, trial, epochs, needed) for trial in group.members.values()}
    together = not any(isinstance(answer, str) for answer in answers.values())
    for number, answer in answers.items():
        yield number, answer if together or isinstance(answer, str) else _OTHERS_CANNOT


def _of_trial(folder: SweepFolder, trial: TrialHistory, epochs: int, needed: Mapping[int, str]) -> Lengthened | str:
    """How a trial continues, or why it does not."""
    started, number = trial.started, trial.number
    if trial.verdict is not None or (trial.is_over and trial.state != "done"):
        return _GIVEN_UP
    own = min(epochs, started.report_epochs or epochs)
    if own <= started.epochs:
        return f"has the {started.epochs} epochs of its report"
    config = TrialConfig.model_validate(started.config)
    if setting := what_spans(config.recipe, config.transfer):
        return f"{setting}{_SPANS}"
    if number in needed:
        return needed[number]
    lasting, kept = _lasting(trial), folder.trial(number).lasting.last
    if lasting == 0:
        return "its only epoch is the cooldown"
    if trial.last_epoch < lasting:
        return Lengthened(trial=number, epochs=own, epoch=trial.last_epoch)
    if not kept.is_file() or state_epoch(kept) != lasting:
        return _NOT_KEPT
    return Lengthened(trial=number, epochs=own, epoch=lasting)


def _lasting(trial: TrialHistory) -> int:
    config = TrialConfig.model_validate(trial.started.config)
    return lasting_epochs(config.recipe, config.transfer, trial.started.epochs)


def _sentence(answers: Mapping[int, Lengthened | str]) -> str:
    continuing: dict[int, list[int]] = {}
    staying: dict[str, list[int]] = {}
    for number, answer in sorted(answers.items()):
        if isinstance(answer, Lengthened):
            continuing.setdefault(answer.epoch, []).append(number)
        else:
            staying.setdefault(answer, []).append(number)
    parts = [f"{_named(numbers)} to continue after epoch {epoch}" for epoch, numbers in sorted(continuing.items())]
    parts += [f"not {_named(numbers)}: {reason}" for reason, numbers in staying.items()]
    return "; ".join(parts) or "no trial has started"


def _named(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    listed = ", ".join(map(str, numbers[:_NAMED]))
    return f"trial{'s' if len(numbers) > 1 else ''} {listed}{more}"
