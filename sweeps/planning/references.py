"""Resolves references of a configuration to other sweeps: the initial weights of its net, and its teachers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from fer_common.errors import did_you_mean
from fer_data import DataError, open_cached
from fer_data.cache.leaks import picture_numbers
from fer_models import Recipe
from fer_models.configs.transfer_config import PUBLISHED
from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.run_kinds import TrainedNet
from sweeps.runs import Run, best_runs, find_run, open_sweep
from sweeps.spec import SweepSpec
from sweeps.trial.run_trial import cache_here
from sweeps.trial.teachers import Teacher, teachers_of, weights_sha256, with_teachers

_BEST = 5
"""Maximum number of trials of a sweep that are teachers."""


class References:
    """What one sweep's configurations name. Teachers are looked up once, so that all of its trials have the same."""

    def __init__(self, spec: SweepSpec, options: Options) -> None:
        self._spec, self._options = spec, options
        self._teachers: dict[tuple[str, tuple[str, ...] | None], list[Teacher]] = {}

    def found(self, config: TrialConfig) -> TrialConfig:
        """`config` with paths of weights in place of runs, and teachers as trials with the hashes of their weights.

        Raises InputError if one of them cannot be used or has seen val faces; for a teacher also if it was trained on
        other faces.
        """
        changes: dict[str, BaseModel] = {}
        if config.transfer.pretrained and config.transfer.weights not in PUBLISHED:
            path = str(_path_of_weights(config.transfer.weights, self._spec, self._options))
            changes["transfer"] = config.transfer.model_copy(update={"weights": path})
        if config.recipe.is_distilled:
            changes["recipe"] = with_teachers(config.recipe, self._teachers_of(config.recipe))
        return config.model_copy(update=changes)

    def _teachers_of(self, recipe: Recipe) -> list[Teacher]:
        named = recipe.distill, recipe.distill_sha256
        if named not in self._teachers:
            try:
                self._teachers[named] = _teachers(recipe, self._spec, self._options.out)
            except InputError as error:
                raise InputError(f"distill '{recipe.distill}': {error}") from None
        return self._teachers[named]


def _path_of_weights(weights: str, spec: SweepSpec, options: Options) -> Path:
    """The path of a run's best weights for "run:NAME/3"; another path as an absolute one."""
    kind, _, reference = weights.partition("run:")
    if not kind and reference:
        run = find_run(reference, options.out, options.tracking_uri)
        run.refuse_unfinished()
        try:
            _refuse_other_folds(run, spec)
            _refuse_other_splits(run, spec)
        except InputError as error:
            raise InputError(f"weights '{weights}': {error}") from None
        return run.weights_file().absolute()
    path = Path(weights).expanduser().absolute()
    if not path.is_file() and Path(weights).name == weights:
        raise InputError(f"weights '{weights}': no such file{did_you_mean(weights, PUBLISHED)}")
    return path


def _teachers(recipe: Recipe, spec: SweepSpec, out: Path) -> list[Teacher]:
    recorded = teachers_of(recipe)
    if recorded:
        named = [(find_run(teacher.run, out), teacher.share) for teacher in recorded]
    else:
        named = list(_named(recipe.distill, out))
    shares: dict[str, float] = {}
    for run, share in named:
        run.refuse_unfinished()
        _refuse_unfit(run, spec)
        shares[run.name] = shares.get(run.name, 0) + share
    runs = {run.name: run for run, _ in named}
    found = [Teacher(name, share, weights_sha256(runs[name].weights_file())) for name, share in shares.items()]
    if recorded and found != recorded:
        raise InputError("the weights of these teachers are not those that were recorded; put the old files back")
    return found


def _named(text: str, out: Path) -> Iterator[tuple[Run, float]]:
    """The single nets of the named teachers, each with its share; the shares sum to 1."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        runs = [find_run(name, out)] if "/" in name else _best(name, out)
        for run in runs:
            yield from ((net, part / len(runs) / len(names)) for net, part in run.nets())


def _best(name: str, out: Path) -> list[Run]:
    """The best trials of a finished sweep whose weights are kept. An ensemble's sweep has only the ensemble."""
    folder, history = open_sweep(name, out)
    if not history.finished:
        raise InputError(f"sweep '{name}' has not finished; finish it, or name trials of it, as {name}/0")
    best = best_runs(folder, history, _BEST)
    return [run for run in best if run.files.best.is_file()] or best[:1]


def _refuse_unfit(run: Run, spec: SweepSpec) -> None:
    """Refuse a teacher that is not a trained net, or that may have seen faces of this sweep's val split."""
    if not isinstance(run.kind, TrainedNet):
        raise InputError(f"{run.name} is a support vector machine; name trained nets")
    if run.spec.classes != spec.classes:
        raise InputError(
            f"{run.name} knows the classes {', '.join(run.spec.classes)}, this sweep has {', '.join(spec.classes)}; "
            "name a teacher of the same classes"
        )
    if run.spec.fingerprint != spec.fingerprint:
        raise InputError(
            f"{run.name} was trained on faces with fingerprint {run.spec.fingerprint}, this sweep has "
            f"{spec.fingerprint}, and may have seen val faces; train the teacher with the same data options"
        )
    _refuse_other_folds(run, spec)


def _refuse_other_folds(run: Run, spec: SweepSpec) -> None:
    """Refuse a run on the same faces or source that was trained on faces on which this sweep validates."""
    theirs, mine = run.data, spec.data
    is_other = (theirs.fold, theirs.folds) != (mine.fold, mine.folds) or spec.folds
    is_same = theirs.source == mine.source or run.spec.fingerprint == spec.fingerprint
    if is_same and is_other:
        raise InputError(
            f"{run.name} has seen faces that folds hold out; name a run on the same fold, "
            "or one without folds for a sweep without folds"
        )


def _refuse_other_splits(run: Run, spec: SweepSpec) -> None:
    """Refuse a run on other faces whose train split has faces that this sweep holds out.

    Splits that are taken from train are other ones once a folder has more images. Nothing is known of a run whose faces
    are gone.
    """
    seen = 0
    if run.spec.fingerprint != spec.fingerprint:
        with suppress(DataError):
            seen = _seen(cache_here(run.spec.faces_of(run.trial.started), run.data), Path(spec.faces))
    if seen:
        raise InputError(
            f"{run.name} was trained on {seen:,} images that are val or test in this sweep; train it again on these "
            "faces (to keep the splits of a folder that grows, 'python -m fer_data export' it before)"
        )


@cache
def _seen(theirs: Path, mine: Path) -> int:
    """Number of val and test images of cached faces that are in the train split of others, and in no other split of
    these, where they were a leak already.
    """
    run, sweep = open_cached(theirs), open_cached(mine)
    train, *rest = picture_numbers(*(split.images for split in (*run.splits, sweep.val, sweep.test)))
    own, held_out = np.concatenate(rest[:2]), np.concatenate(rest[2:])
    return int((np.isin(held_out, train) & ~np.isin(held_out, own)).sum())
