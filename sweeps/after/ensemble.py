"""Ensembles: the averaged probabilities of several nets, recorded as a run; or the nets joined and trained as one net.

An averaged ensemble has a folder like a sweep's, with a journal of one trial, so all verbs for runs work on it. Weights
and members are chosen on the validation split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer_models import JointConfig, Transfer
from fer_models.configs.net_config import Single
from sweeps.after.derived_run import new_folder, record_run
from sweeps.errors import InputError
from sweeps.run_kinds import Ensemble, EnsembleMethod, TrainedNet
from sweeps.runs import Run, find_run
from sweeps.trial.teachers import weights_sha256
from tracking.metrics.probability_scores import image_log_losses
from tracking.record.files import write_json
from tracking.record.layout import SweepFolder
from tracking.record.predictions import Predictions

SPACE = "ensembles"
"""The name of the experiment in MLflow."""

_GREEDY_ROUNDS = 50
_FOLDS = 5
_FOLD_SEED = 0
_LEAST_WEIGHT = 1e-6
"""Members with a lower weight are left out: they cost a whole net and hardly change a prediction."""


@dataclass(frozen=True)
class Choice:
    """The weight of each candidate, 0 if left out; they sum to 1."""

    weights: NDArray[np.float64]
    probabilities: NDArray[np.float64]


def combine(labels: NDArray[np.int64], candidates: NDArray[np.floating], method: EnsembleMethod) -> Choice:
    """Combine probabilities [members, n, classes].

    `mean` weights all equally; `weighted` uses the weights with the lowest log-loss on these labels; `greedy` adds,
    with replacement, the member that increases accuracy most (Caruana et al. 2004), and of equal ones that with the
    lower log-loss.
    """
    if method == "mean":
        weights = np.full(len(candidates), 1 / len(candidates))
    elif method == "weighted":
        weights = _least_log_loss(labels, candidates)
    else:
        weights = _greedy(labels, candidates)
    return Choice(weights, _average(candidates, weights))


def fitted_apart(
    labels: NDArray[np.int64], candidates: NDArray[np.floating], method: EnsembleMethod
) -> NDArray[np.float64]:
    """As `combine`, but cross-fitted: probabilities [n, classes], each with weights that were fitted without that face.

    Greedy selection gains a point or more on the faces that it is fitted to, but not on others.
    """
    folds = np.random.default_rng(_FOLD_SEED).permutation(len(labels)) % _FOLDS
    probabilities = np.zeros(candidates.shape[1:])
    for fold in range(_FOLDS):
        here = folds == fold
        weights = combine(labels[~here], candidates[:, ~here], method).weights
        probabilities[here] = _average(candidates[:, here], weights)
    return probabilities


def answers_fitted_apart(run: Run) -> Predictions:
    """A run's predictions on the validation split; those of fitted ensembles, also within another, are cross-fitted."""
    if not isinstance(run.kind, Ensemble):
        return run.predictions()
    out = run.sweep.root.parent
    candidates = [answers_fitted_apart(find_run(name, out)) for name in run.kind.candidates or run.kind.members]
    labels = candidates[0].labels
    apart = fitted_apart(labels, np.stack([one.probabilities for one in candidates]), run.kind.method)
    return replace(run.predictions(), probabilities=apart.astype(np.float32))


def is_fitted(run: Run) -> bool:
    """Whether weights were fitted on the validation split: the run's own, or those of an ensemble within it.

    Of a member that is gone this is not known.
    """
    if not isinstance(run.kind, Ensemble):
        return False
    for name in run.kind.members:
        with suppress(InputError):
            if is_fitted(find_run(name, run.sweep.root.parent)):
                return True
    return run.kind.is_fitted


def _average(candidates: NDArray[np.floating], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((weights[:, None, None] * candidates).sum(axis=0), np.float64)


def _least_log_loss(labels: NDArray[np.int64], candidates: NDArray[np.floating]) -> NDArray[np.float64]:
    """Fit the mixture weights by expectation maximisation, which stays in the simplex and improves at each step."""
    of_label = candidates[:, np.arange(len(labels)), labels].astype(np.float64) + 1e-12
    weights = np.full(len(candidates), 1 / len(candidates))
    for _ in range(200):
        shares = weights[:, None] * of_label
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    weights[weights < _LEAST_WEIGHT] = 0
    return np.asarray(weights / weights.sum(), np.float64)


def _greedy(labels: NDArray[np.int64], candidates: NDArray[np.floating]) -> NDArray[np.float64]:
    total = np.zeros(candidates.shape[1:])
    counts = np.zeros(len(candidates))
    best, best_counts = (-1.0, 0.0), counts
    for size in range(1, _GREEDY_ROUNDS + 1):
        scores = [_score(labels, (total + member) / size) for member in candidates]
        chosen = max(range(len(candidates)), key=lambda index: scores[index])
        total, counts = total + candidates[chosen], counts + (np.arange(len(candidates)) == chosen)
        if scores[chosen] > best:
            best, best_counts = scores[chosen], counts
    weights: NDArray[np.float64] = best_counts / best_counts.sum()
    return weights


def _score(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> tuple[float, float]:
    right = float((probabilities.argmax(1) == labels).mean())
    return right, -float(image_log_losses(labels, probabilities.astype(np.float64)).mean())


def make_ensemble(
    runs: Sequence[Run], method: EnsembleMethod, name: str, out: Path, *, tracking_uri: str | None = None
) -> Run:
    """Combine runs into a new one, recorded under `name`; `tracking_uri` as in `record_run`.

    Raises InputError if they cannot be combined.
    """
    _refuse_unfit(runs)
    answers = [run.predictions() for run in runs]
    folder = new_folder(name, out)
    labels = answers[0].labels
    choice = combine(labels, np.stack([one.probabilities for one in answers]), method)
    members = [(run, weight) for run, weight in zip(runs, choice.weights, strict=True) if weight > 0]
    return _record(folder, members, method, choice.probabilities, [run.name for run in runs], tracking_uri)


JointAt = Literal["output", "middle"]
_LR_FACTORS: dict[JointAt, float] = {"output": 0.1, "middle": 1.0}
"""Of the first member's learning rate: trained nets are tuned, a new classifier has all to learn."""


def write_joint_net(runs: Sequence[Run], at: JointAt, name: str, out: Path, lr: float | None = None) -> Path:
    """Join trained nets into one; return its configuration's file, beside which its first weights are.

    It is trained as the first of `runs` was, from the members' weights. `lr` replaces its learning rate.

    Raises:
        InputError: the runs cannot be combined, are not single nets, or differ in preprocessing.
        ModelError: a net cannot be cut at its middle.
    """
    import torch

    from fer_models.nets.joint import join
    from fer_models.training.weights import save_weights

    _refuse_unfit(runs)
    first = runs[0]
    for run in runs:
        if not isinstance(run.kind, TrainedNet):
            raise InputError(f"{run.name}: is no single net; name trials to be joined")
        if run.config.preprocess != first.config.preprocess:
            raise InputError(f"{run.name} and {first.name} were trained on different preprocessings of the faces")
    members = tuple(map(_single, runs))
    folder, faces = new_folder(name, out).root / "joint", first.faces()
    generator = torch.Generator().manual_seed(first.trial.started.seed % 2**63)
    net = join([run.net(faces) for run in runs], at, len(faces.classes), generator)
    folder.mkdir(parents=True, exist_ok=True)
    weights = (folder / "weights.safetensors").absolute()
    names = tuple(run.name for run in runs)
    save_weights(net, weights, {"members": ", ".join(names)})
    recipe = first.config.recipe.model_copy(update={"lr": lr or first.config.recipe.lr * _LR_FACTORS[at]})
    config = first.config.model_copy(
        update={
            "net": JointConfig(members=members, at=at, joined_from=names),
            "recipe": recipe,
            "transfer": Transfer(weights=str(weights), sha256=weights_sha256(weights)),
        }
    )
    write_json(folder / "joint_nets.json", config.model_dump(mode="json"))
    return folder / "joint_nets.json"


def _single(run: Run) -> Single:
    net = run.config.net
    if isinstance(net, JointConfig):
        raise InputError(f"{run.name}: is joint already; name trials of single nets")
    return net


def _refuse_unfit(runs: Sequence[Run]) -> None:
    """Refuse too few or repeated runs, different faces, and runs that are unfinished or have no weights."""
    if len(runs) < 2:
        raise InputError(f"an ensemble needs at least two runs, got {len(runs)}")
    twice = [name for name, count in Counter(run.name for run in runs).items() if count > 1]
    if twice:
        raise InputError(f"{', '.join(twice)}: named more than once; name each member of an ensemble once")
    prints = {run.spec.fingerprint for run in runs}
    if len(prints) > 1:
        told = ", ".join(f"{run.name} {run.spec.fingerprint}" for run in runs)
        raise InputError(f"these runs were trained on different data: {told}; choose runs of one data set")
    if len({run.split for run in runs}) > 1:
        told = ", ".join(f"{run.name} {run.split}" for run in runs)
        raise InputError(f"these runs were validated on different faces: {told}; choose runs of one fold")
    for run in runs:
        run.refuse_unfinished()
        for net, _ in run.nets():
            net.weights_file()


def _record(
    folder: SweepFolder,
    members: Sequence[tuple[Run, float]],
    method: EnsembleMethod,
    probabilities: NDArray[np.float64],
    candidates: Sequence[str],
    tracking_uri: str | None,
) -> Run:
    what = f"{method} of {len(members)}"
    weights = {run.name: float(weight) for run, weight in members}
    made = Ensemble(method=method, members=weights, candidates=tuple(candidates))
    config = {
        "ensemble": made.model_dump(mode="json"),
        "net": {"name": what},
    }
    like = members[0][0]
    return record_run(folder, like, probabilities, space=SPACE, config=config, what=what, tracking_uri=tracking_uri)
