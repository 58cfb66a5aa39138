"""The baselines of a sweep after its space was edited between two runs.

Those that have begun stay as they were trained. Those that were known at the start and have not begun are trained as
the file has them now. New ones are trained only on request, because each takes the place of another trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sweeps.config import TrialConfig
from sweeps.space import Baseline, Space
from sweeps.spec import SweepSpec, recorded_spec
from tracking.flatten import flatten
from tracking.record.history import SweepHistory

_CHOSEN_AFTER_THE_DRAW = ("precision", "memory_format", "replicate")


def changed_settings(was: TrialConfig, now: TrialConfig) -> list[str]:
    """The settings that differ, except those that are chosen after a configuration is drawn."""
    before, after = (flatten(one.model_dump(mode="json")) for one in (was, now))
    return [
        f"{name} {before.get(name, '(none)')}, now {after.get(name, '(none)')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in _CHOSEN_AFTER_THE_DRAW
    ]


def baseline_notes(
    space: Space, asked: Space, spec: SweepSpec, history: SweepHistory, resolve: Callable[[TrialConfig], TrialConfig]
) -> Iterator[str]:
    """The differences of the baselines, one line each. `space` has those of the sweep, `asked` those of the file."""
    known, begun = recorded_spec(history).baselines, history.baselines
    for one in asked.with_baselines(spec.which_baselines).baselines:
        if one.is_in(begun):
            yield from _changed(one, space, history, resolve)
        elif one.is_in(known):
            continue
        elif one.is_in(ours.name for ours in space.baselines):
            yield f"baseline {one.name}: new, and trained next"
        else:
            yield (
                f"baseline {one.name}: new, and not trained, since trials were drawn already; "
                "--resume --baselines all trains it, within --trials"
            )
    for name in [*begun, *known]:
        if not any(one.is_called(name) for one in asked.baselines):
            trial = begun.get(name)
            what = f"trial {trial.number} stays" if trial else "and not trained"
            yield f"baseline {name}: no longer in the file; {what}"


def _changed(
    written: Baseline, space: Space, history: SweepHistory, resolve: Callable[[TrialConfig], TrialConfig]
) -> Iterator[str]:
    trial = next(trial for name, trial in history.baselines.items() if written.is_called(name))
    ours = next((one for one in space.baselines if one.is_called(written.name)), None)
    if ours is None:
        return
    settings = changed_settings(TrialConfig.model_validate(trial.started.config), resolve(ours.config))
    if settings:
        yield f"baseline {written.name}: {'; '.join(settings)}: trial {trial.number} stays as it was trained"


def with_begun_baselines(spec: SweepSpec, history: SweepHistory) -> SweepSpec:
    """`spec` with the baselines that have begun, as they were then. The file may have dropped or changed them since."""
    known = recorded_spec(history).baselines
    begun = {name: known.get(name, "") for name in history.baselines}
    gone = [history.baselines[name].started.epochs for name in begun if name not in spec.baselines]
    return spec.model_copy(
        update={"baselines": spec.baselines | begun, "baseline_epochs": (*spec.baseline_epochs, *gone)}
    )
