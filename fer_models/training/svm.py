"""A support vector machine that replaces a net's last layer (Tang 2013, who won FER2013's contest with a linear one).

Legend: n images, f features before the net's last layer, k classes, q landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fer_models.configs.recipe import Kernel, Precision, Views
from fer_models.errors import ModelError
from fer_models.parts.staged import Staged
from fer_models.training.evaluate import Pixels, in_batches, look, predict_features
from fer_models.training.state import move
from fer_models.training.tensor_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

CANDIDATES = {"linear": (1e-4, 1e-3, 1e-2, 1e-1, 1.0), "rbf": (1e-1, 1.0, 1e1, 1e2)}
"""Candidates for C, for features of mean 0 and deviation 1, or for their kernel map."""

LANDMARKS = 500
"""Number of landmark images of the approximated kernel; the exact one would compare all pairs of images."""

_HELD_OUT = 0.2
_RBF = "rbf."
_FOLDS = 3

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RbfMap:
    """A map whose inner products approximate exp(-gamma |x - y|^2), by landmarks (Nyström; Williams and Seeger
    2001)."""

    gamma: float
    landmarks: Array
    """[q, f]."""
    projection: Array
    """[q, q]."""

    def __call__(self, features: Array) -> Array:
        """Standardised features [n, f] -> [n, q]."""
        squares = (features**2).sum(1)[:, None] + (self.landmarks**2).sum(1) - 2 * features @ self.landmarks.T
        result: Array = np.exp(-self.gamma * np.maximum(squares, 0)) @ self.projection.T
        return result


@dataclass(frozen=True)
class SvmHead:
    """One-versus-rest machines, with margins converted to probabilities (Platt 1999).

    With two classes there is one machine, for the second class, and m = 1; else m = k.
    """

    c: float
    """Inverse strength of the regularisation."""
    held_out_accuracy: float
    """Accuracy with that C on the part of the train split that was held out to choose it."""
    mean: Array
    """[f]."""
    deviation: Array
    """[f]."""
    weight: Array
    """[m, f], or [m, q] after an `rbf` map."""
    bias: Array
    """[m]."""
    slope: Array
    """[m]; a margin d is a probability 1 / (1 + exp(slope * d + offset))."""
    offset: Array
    """[m]."""
    rbf: RbfMap | None = None
    """None if the machine is linear in the features."""

    def margins(self, features: npt.NDArray[np.float32]) -> Array:
        """Features [n, f] -> signed distances [n, m], positive if the machine predicts its class."""
        seen = (features - self.mean) / self.deviation
        result: Array = (self.rbf(seen) if self.rbf else seen) @ self.weight.T + self.bias
        return result

    def predict_proba(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Features [n, f] -> probabilities [n, k]."""
        margins = self.margins(features)
        chances = (1 - np.tanh((self.slope * margins + self.offset) / 2)) / 2  # 1 / (1 + exp(.)) without overflow
        if chances.shape[1] == 1:
            chances = np.hstack([1 - chances, chances])
        total = chances.sum(axis=1, keepdims=True)
        even = np.full_like(chances, 1 / chances.shape[1])
        probabilities = np.divide(chances, total, out=even, where=total > 0)
        result: npt.NDArray[np.float32] = probabilities.astype(np.float32)
        return result

    def save(self, path: Path) -> None:
        """Write a safetensors file. Raises ModelError if it cannot be written."""
        values = {name: value for name, value in vars(self).items() if name != "rbf"}
        if self.rbf:
            values |= {_RBF + name: value for name, value in vars(self.rbf).items()}
        arrays = {name: torch.tensor(np.asarray(value)) for name, value in values.items()}
        write_tensors(path, arrays, {"kind": "svm"})


def load_svm(path: Path) -> SvmHead:
    """The head that `SvmHead.save` wrote.

    Raises:
        ModelError: missing, truncated, corrupt or unsafe file, or no support vector machine.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("kind") != "svm":
        raise ModelError(f"{path}: has no support vector machine")
    arrays = {name: value.numpy() for name, value in tensors.items()}
    of_rbf = {name.removeprefix(_RBF): arrays.pop(name) for name in list(arrays) if name.startswith(_RBF)}
    rbf = RbfMap(gamma=float(of_rbf.pop("gamma")), **of_rbf) if of_rbf else None
    c, accuracy = (float(arrays.pop(name)) for name in ("c", "held_out_accuracy"))
    return SvmHead(c=c, held_out_accuracy=accuracy, rbf=rbf, **arrays)


@torch.inference_mode()
def predict_svm(
    net: nn.Module, head: SvmHead, images: Pixels, *, device: str = "cpu", views: Views = "plain"
) -> npt.NDArray[np.float32]:
    """Probabilities [n, k] of faces [n, h, w], averaged over the views of each. The net is moved to `device`.

    Raises:
        ModelError: the net has no features.
    """

    if not isinstance(net, Staged):
        raise ModelError(f"{type(net).__name__} has no features below its head")
    move(net, torch.device(device), "contiguous")
    features = net.features

    def probabilities(x: torch.Tensor) -> torch.Tensor:
        seen = [head.predict_proba(features(view).float().cpu().numpy()) for view in look(x, views)]
        return torch.from_numpy(np.mean(seen, axis=0))

    batches = list(in_batches(net, probabilities, images, device, "fp32"))
    result: npt.NDArray[np.float32] = torch.cat(batches).numpy()
    return result


def fit_svm(
    net: nn.Module,
    images: Pixels,
    labels: npt.NDArray[np.integer],
    *,
    kernel: Kernel = "linear",
    seed: int = 0,
    candidates: Sequence[float] = (),
    device: str = "cpu",
    precision: Precision = "fp32",
) -> SvmHead:
    """Fit a machine on the net's features of train images [n, h, w] and their labels [n].

    C is the candidate (default `CANDIDATES`) with the highest accuracy on a stratified fifth of the images. The machine
    is then fitted on all images, and its probabilities on margins of held-out images (three folds). The net was trained
    on that fifth, too, so its accuracy ranks candidates but does not estimate accuracy on other faces. With
    `kernel="rbf"` the machine is linear in a map of at most `LANDMARKS` images, gamma 1 / f.

    Raises:
        ModelError: a class has fewer than five labels.
    """
    counts = np.bincount(labels)
    if counts.min() < 1 / _HELD_OUT or len(counts) < 2:
        raise ModelError(f"a support vector machine needs 2 or more classes with 5 images each, got {counts.tolist()}")
    features = predict_features(net, images, device=device, precision=precision).astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation == 0] = 1.0  # a constant feature
    features = (features - mean) / deviation
    seed %= 2**32  # the range of scikit-learn
    rbf = _rbf_map(features, seed) if kernel == "rbf" else None
    seen = rbf(features) if rbf else features
    c, accuracy = _choose_c(seen, labels, seed, candidates or CANDIDATES[kernel])
    return SvmHead(c, accuracy, mean, deviation, *_fit(seen, labels, c), rbf)


def _rbf_map(features: Array, seed: int) -> RbfMap:
    from sklearn.kernel_approximation import Nystroem

    gamma, count = 1 / features.shape[1], min(LANDMARKS, len(features))
    sampler = Nystroem(  # type: ignore[no-untyped-call]
        kernel="rbf", gamma=gamma, n_components=count, random_state=seed
    )
    fitted = sampler.fit(features)
    return RbfMap(gamma, fitted.components_, fitted.normalization_)


def _choose_c(
    features: Array, labels: npt.NDArray[np.integer], seed: int, candidates: Sequence[float]
) -> tuple[float, float]:
    """The best candidate and its accuracy; of equal ones the smallest, which has the widest margin."""
    from sklearn.model_selection import train_test_split

    parts = train_test_split(features, labels, test_size=_HELD_OUT, random_state=seed, stratify=labels)
    x_fit, x_held, y_fit, y_held = parts
    accuracies = [_machine(c).fit(x_fit, y_fit).score(x_held, y_held) for c in sorted(candidates)]
    best = int(np.argmax(accuracies))
    return sorted(candidates)[best], float(accuracies[best])


def _fit(features: Array, labels: npt.NDArray[np.integer], c: float) -> tuple[Array, Array, Array, Array]:
    """weight, bias, slope and offset."""
    from sklearn.calibration import CalibratedClassifierCV

    calibrated = CalibratedClassifierCV(  # type: ignore[no-untyped-call]
        _machine(c), method="sigmoid", cv=_FOLDS, ensemble=False
    )
    (whole,) = calibrated.fit(features, labels).calibrated_classifiers_
    slope, offset = (np.array([getattr(sigmoid, name) for sigmoid in whole.calibrators]) for name in ("a_", "b_"))
    return whole.estimator.coef_, whole.estimator.intercept_, slope, offset


def _machine(c: float) -> LinearSVC:
    from sklearn.svm import LinearSVC

    # For C >= 0.01 and 5,000 images the dual took 3 to 80 times as long.
    return LinearSVC(C=c, dual=False)  # type: ignore[no-untyped-call]
