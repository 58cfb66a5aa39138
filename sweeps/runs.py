"""Finds a recorded trial by name, with its faces and its net.

A run is named NAME/NUMBER, NAME for a sweep's best trial, or by its MLflow run id.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.submit import REACHED_BY
from fer_common.errors import did_you_mean
from fer_common.flags import command_line
from fer_data import DataOptions, Faces, open_cached, prepare
from fer_data.cache.preprocess_cache import preprocessed
from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.planning.resources import Device
from sweeps.run_kinds import Ensemble, RunKind, SvmHead, kind_of
from sweeps.spec import SweepSpec, recorded_spec
from tracking.errors import TrackingError
from tracking.metrics.winner import winner_of
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.layout import JOURNAL_NAME, SweepFolder, TrialFolder
from tracking.record.predictions import Predictions, best_predictions

if TYPE_CHECKING:
    from torch import nn

_MLFLOW_ID = r"[0-9a-f]{32}"
_LISTED = 5
_FROM_AFAR = ("resume", "status", "unpause")
"""Verbs of printed commands that reach a sweep on a cluster; the others are run there."""

_ROUNDING = 1e-3
"""Tolerance for an ensemble's predictions, which are float32; its weights were once recorded with six decimals."""


@dataclass(frozen=True)
class Run:
    """One trial and its sweep."""

    sweep: SweepFolder
    history: SweepHistory
    trial: TrialHistory

    @property
    def name(self) -> str:
        """NAME/NUMBER."""
        return f"{self.sweep.root.name}/{self.trial.number}"

    @property
    def objective(self) -> float:
        """Validation accuracy at the best epoch; 0 before the first."""
        return self.trial.best_accuracy or 0.0

    @property
    def files(self) -> TrialFolder:
        """The trial's folder."""
        return self.sweep.trial(self.trial.number)

    @cached_property
    def spec(self) -> SweepSpec:
        """The recorded options of its sweep."""
        return recorded_spec(self.history)

    @property
    def data(self) -> DataOptions:
        """The data that it was trained and validated on, with its fold if it has one."""
        return self.spec.data_of(self.trial.started)

    @property
    def split(self) -> str:
        """The name of its val split, with its fold if it has one."""
        fold = f", fold {self.data.fold} of {self.data.folds}" if self.data.fold else ""
        return f"{self.spec.val_title}{fold}"

    @cached_property
    def config(self) -> TrialConfig:
        """Its configuration."""
        of_net = {name: value for name, value in self.trial.started.config.items() if name != "svm"}
        return TrialConfig.parse(of_net, f"{self.name}: config")

    def weights_file(self) -> Path:
        """The file of its weights at the best epoch so far.

        Raises InputError if a worker may replace it, or if there is none.
        """
        if self.trial.is_out:
            self.refuse_unfinished()
        if isinstance(self.kind, Ensemble):
            raise InputError(
                f"{self.name}: an ensemble has no weights of its own; name a member: {_listed(self.kind.members)}"
            )
        if not self.files.best.is_file():
            self.refuse_unfinished()
            keep = self.spec.keep
            rule = f"; its sweep keeps those of the best {keep} trials and of baselines (--keep)" if keep else ""
            raise InputError(
                f"{self.name}: its weights are not kept ({self.files.best}){rule}; train it again: {self._training()}"
            )
        return self.files.best

    def _training(self) -> str:
        """The command that trains it again as a new sweep, with the same seed."""
        words = ["python", "-m", "sweeps.run", str(self.files.config), *command_line(self.data)]
        words += ["--epochs", str(self.trial.started.epochs), "--seed", str(self.spec.seed)]
        return shlex.join([*words, *_out_option(self.sweep.root.parent)])

    @property
    def tested(self) -> str:
        """The first evaluation of its net on the test split: its number and the accuracy. Empty if there was none."""
        test = self.trial.first_test()
        if test is None:
            return ""
        looks = len(self.trial.tests)
        which = "evaluated once" if looks == 1 else f"evaluation {test.look} of {looks} of this trial"
        return f"{which}: {test.metrics['test_accuracy']:.2%}"

    @property
    def so_far(self) -> str:
        """Of a trial that is not over and has no worker, which epoch's net it has now; else empty."""
        best = self.trial.best_epoch()
        if self.trial.is_over or self.trial.is_out or best is None:
            return ""
        at = f"{self.trial.state} after epoch {self.trial.last_epoch} of {self.trial.started.epochs}"
        return f"its best epoch so far, {best.epoch}, since the trial is not over ({at})"

    def refuse_unfinished(self) -> None:
        """Raise InputError while a resume may still change the trial's best epoch, and if there will be none."""
        if self.trial.is_over and self.trial.best_epoch():
            return
        finished = (trial for trial in self.history.trials.values() if trial.is_over and trial.best_epoch())
        over = [f"{self.sweep.root.name}/{trial.number}" for trial in finished]
        if self.trial.is_over:
            raise InputError(
                f"{self.name}: this trial is {self.trial.state} and has no finished epoch ({self.trial.reason}); "
                f"name another one{': ' if over else ''}{_listed(over)}"
            )
        others = f", or name one that has: {_listed(over)}" if over else ""
        raise InputError(
            f"{self.name}: this trial has not finished (state {self.trial.state}, epoch {self.trial.last_epoch} of "
            f"{self.trial.started.epochs}); wait until it has, or finish its sweep with "
            f"'{self._command('resume', self.sweep.root.name)}'{others}"
        )

    def kept_predictions(self) -> Predictions | None:
        """Its predictions on the validation split at its best epoch. None if they are gone."""
        return best_predictions(self.files, self.trial)

    def predictions(self) -> Predictions:
        """The same. Raises InputError if they are gone."""
        found = self.kept_predictions()
        if found is None:
            self.refuse_unfinished()
            raise InputError(f"{self.name}: has no probabilities of its best epoch in {self.files.root}")
        return found

    def faces(self) -> Faces:
        """The faces that it was trained on, preprocessed. Raises InputError if they have changed."""
        preprocessing = "none" if isinstance(self.kind, Ensemble) else self.config.preprocess
        return open_cached(preprocessed(self._cache(), preprocessing))

    def raw_faces(self) -> Faces:
        """Its faces before any preprocessing. Raises InputError if they have changed."""
        return open_cached(self._cache())

    def _cache(self) -> Path:
        found = open_cached(prepare(self.spec.data))
        if found.fingerprint != self.spec.fingerprint:
            raise InputError(
                f"{self.name}: trained on data with fingerprint {self.spec.fingerprint}, "
                f"{self.spec.data.source} now has {found.fingerprint}; put the old file back"
            )
        return prepare(self.data)

    def _command(self, *words: str) -> str:
        return command_for(self.sweep.root.parent, *words)

    @cached_property
    def kind(self) -> RunKind:
        """A trained net, an ensemble, or a support vector machine on a net's features."""
        return kind_of(self.trial.started.config)

    def nets(self) -> Iterator[tuple[Run, float]]:
        """The single nets of this run, each with its weight; they sum to 1.

        Raises InputError if a member of an ensemble is gone, or has other predictions than when it was made.
        """
        if not isinstance(self.kind, Ensemble):
            yield self, 1.0
            return
        out, names = self.sweep.root.parent, self.kind.members
        members = [(find_run(name, out), weight) for name, weight in names.items()]
        left = self.predictions().probabilities
        for member, weight in members:
            theirs = member.predictions().probabilities
            left = left - weight * theirs if theirs.shape == left.shape else np.full_like(left, np.inf)
        if np.abs(left).max(initial=0) > _ROUNDING:
            raise InputError(
                f"{self.name}: its members {_listed(names)} have other predictions than when it was made; "
                f"make it again: {self._command('ensemble', *names, '--name', 'NAME')}"
            )
        for member, weight in members:
            yield from ((net, weight * share) for net, share in member.nets())

    def predict(self, split: str, device: Device = "cpu") -> NDArray[np.float32]:
        """Probabilities [n, classes] on a split, by the weights of the best epoch, with the views of the recipe."""
        from fer_models.training.evaluate import predict
        from fer_models.training.svm import load_svm, predict_svm

        if isinstance(self.kind, Ensemble):
            parts = [weight * net.predict(split, device) for net, weight in self.nets()]
            return np.asarray(np.sum(parts, axis=0), np.float32)
        faces = self.faces()
        net, images, views = self.net(faces), getattr(faces, split).images, self.config.recipe.views
        if isinstance(self.kind, SvmHead):
            return predict_svm(net, load_svm(self.files.svm), images, device=device, views=views)
        return predict(net, images, device=device, views=views)

    def net(self, faces: Faces) -> nn.Module:
        """Its net with the weights of its best epoch, on the CPU. Raises InputError or ModelError."""
        from fer_models.training.weights import load_weights
        from sweeps.trial.build_net import new_net

        weights, net = self.weights_file(), new_net(self.config, faces)
        load_weights(net, weights)
        return net.eval()


def _listed(names: Iterable[str]) -> str:
    first = list(islice(names, _LISTED + 1))
    return ", ".join(first[:_LISTED]) + (" …" if len(first) > _LISTED else "")


def made_of(trial: TrialHistory) -> tuple[str, ...]:
    """The runs from which an ensemble or a support vector machine was made; none for a trained net."""
    return kind_of(trial.started.config).sources


def _combined(trial: TrialHistory) -> tuple[str, ...]:
    """The runs whose nets a trial combines: those that it was made from, or that were joined before its training."""
    return made_of(trial) or tuple(trial.started.config.get("net", {}).get("joined_from", ()))


def refuse_made(name: str, trials: Iterable[TrialHistory]) -> None:
    """Raise InputError if one of the trials was not trained but made from others, so that nothing can continue it."""
    for trial in trials:
        if sources := made_of(trial):
            raise InputError(f"{name}: was not trained, but made from {_listed(sources)}; name one of those")


def find_run(reference: str, out: Path, tracking_uri: str | None = None, *, unfinished: bool = False) -> Run:
    """The run that `reference` names. Raises InputError if there is none.

    A sweep's name is its best trial that is over; with `unfinished` also one that is paused, waits or was stopped, by
    its best epoch so far.
    """
    if re.fullmatch(_MLFLOW_ID, reference):
        folder, history, number = _by_mlflow_id(reference, out, tracking_uri)
    else:
        name, slash, after = reference.partition("/")
        folder, history = open_sweep(name, out)
        number = after if slash else None
    if number is None:
        return best_runs(folder, history, 1, unfinished=unfinished)[0]
    if not number.isdecimal() or int(number) not in history.trials:
        raise InputError(f"{folder.root.name} has no trial '{number}'; it has {history.numbers}")
    return Run(folder, history, history.trials[int(number)])


def command_for(out: Path, verb: str, *words: str) -> str:
    """The command line of a verb for the sweeps of a folder, as who started this process would type it."""
    command = shlex.join(["python", "-m", "sweeps", verb, *words])
    reached_by = os.environ.get(REACHED_BY)
    if reached_by and verb in _FROM_AFAR:
        return f"{command} {reached_by}"
    command = " ".join([command, *map(shlex.quote, _out_option(out))])
    return f"{command}   # on the cluster" if reached_by else command


def _out_option(out: Path) -> list[str]:
    return [] if out == Path("runs") else ["--out", str(out)]


def sweep_names(out: Path) -> list[str]:
    """The names of all sweeps in `out`."""
    return sorted(path.parent.name for path in out.glob(f"*/{JOURNAL_NAME}"))


def readable_sweeps(out: Path) -> Iterator[tuple[SweepFolder, SweepHistory]]:
    """Every sweep in `out` with a readable journal; others never started or are damaged."""
    for name in sweep_names(out):
        with suppress(TrackingError):
            yield open_sweep(name, out)


def related_sweeps(run: Run) -> list[tuple[SweepFolder, SweepHistory]]:
    """The sweeps that trained a run's nets, and all sweeps that combine nets of those."""
    found = list(readable_sweeps(run.sweep.root.parent))
    histories = {folder.root.name: history for folder, history in found}
    mine = _origins(run.sweep.root.name, histories)
    return [(folder, history) for folder, history in found if mine & _origins(folder.root.name, histories)]


def _origins(name: str, histories: Mapping[str, SweepHistory]) -> set[str]:
    """The sweeps that trained the nets of a sweep's trials: itself, or those of the trials that it combines."""
    found: set[str] = set()
    seen, waiting = {name}, [name]
    while waiting:
        one = waiting.pop()
        trials = histories[one].trials.values() if one in histories else ()
        used = {reference.partition("/")[0] for trial in trials for reference in _combined(trial)}
        found |= set() if used else {one}
        waiting += used - seen
        seen |= used
    return found


def open_sweep(name: str, out: Path) -> tuple[SweepFolder, SweepHistory]:
    """A sweep's folder and history by name. Raises InputError if there is none."""
    folder = sweep_folder(name, out)
    return folder, SweepHistory.load(folder.journal)


def sweep_folder(name: str, out: Path) -> SweepFolder:
    """A sweep's folder by name. Raises InputError if there is none."""
    folder = SweepFolder(out / name)
    if not folder.journal.is_file():
        raise InputError(f"no sweep '{name}' in {out}{did_you_mean(name, sweep_names(out))}")
    return folder


def best_runs(folder: SweepFolder, history: SweepHistory, count: int, *, unfinished: bool = False) -> list[Run]:
    """The `count` best of the trials that are over, best first. Raises InputError if there are none.

    With `unfinished` those that have no worker count too, by their best epochs so far. The first is the winner, which
    `--prefer` may choose among those within noise of the best.
    """
    ranked = [
        trial
        for trial in history.ranked()
        if trial.is_over or (unfinished and not trial.is_out and folder.trial(trial.number).best.is_file())
    ]
    if not ranked:
        raise InputError(f"{folder.root.name}: none of its trials has finished yet")
    if history.spec.get("prefer") and (winner := winner_of(folder, history)):
        ranked.sort(key=lambda trial: trial.number != winner.trial)
    return [Run(folder, history, trial) for trial in ranked[:count]]


def _by_mlflow_id(run_id: str, out: Path, tracking_uri: str | None) -> tuple[SweepFolder, SweepHistory, str | None]:
    """The sweep of an MLflow run, and the number of its trial. None is the sweep's own run."""
    from tracking.mlflow_sync.upkeep import find_trial
    from tracking.mlflow_sync.uri import resolve_tracking_uri

    faults = []
    for recorded in [None] if tracking_uri else dict.fromkeys([None, *_recorded_places(out)]):
        try:
            name, sweep_id, number = find_trial(run_id, resolve_tracking_uri(tracking_uri, out, recorded))
        except TrackingError as error:
            faults.append(str(error))
            continue
        folder, history = open_sweep(name, out)
        # A sweep may have been deleted and made again, and on a shared server a colleague's may have the same name.
        if history.started.sweep_id != sweep_id:
            raise InputError(
                f"MLflow's run {run_id} belongs to another sweep named '{name}' (id {sweep_id}) than the one in "
                f"{folder.root} (id {history.started.sweep_id}); give --out with the folder of that sweep"
            )
        return folder, history, None if number is None else str(number)
    raise TrackingError("; ".join(dict.fromkeys(faults)))


def _recorded_places(out: Path) -> Iterator[str]:
    """The tracking URIs of the sweeps in `out`."""
    for _, history in readable_sweeps(out):
        with suppress(InputError):
            if place := recorded_spec(history).tracking_uri:
                yield place
