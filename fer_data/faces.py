"""The one type every data set becomes: three splits of grey faces with their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]
MeanImage = NDArray[np.float32]

EXPRESSIONS = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
SPLITS = ("train", "val", "test")


class DataError(Exception):
    """Bad data or a bad place for it; the message says the rule, the value given and the way out."""


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set.

    images: [n, height, width] uint8, possibly memory-mapped; labels: [n] uint8, indices into the classes.
    """

    name: str
    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"split {self.name}: images {self.images.shape} and labels {self.labels.shape} do not fit: "
                "expected [n, height, width] and [n]"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, classes: int) -> list[int]:
        """Images per class, for labels 0..classes-1."""
        return [int(count) for count in np.bincount(self.labels, minlength=classes)]


@dataclass(frozen=True, eq=False)
class Faces:
    """A data set: what it is called, what its content hashes to, and its three splits.

    `notes` are remarks to be seen beside any number from this data. `stored_mean` is the mean image of train,
    where it was computed before.
    """

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    synthetic: bool
    notes: tuple[str, ...] = ()
    stored_mean: MeanImage | None = field(default=None, repr=False)

    def mean_image(self) -> MeanImage:
        """Return the pixelwise mean of the train split: [height, width] float32, 0..255."""
        return self.stored_mean if self.stored_mean is not None else mean_of(self.train.images)


def mean_of(images: Images) -> MeanImage:
    """Return the pixelwise mean of [n, height, width] as [height, width] float32, from exact sums."""
    total = images.sum(axis=0, dtype=np.uint64)
    return np.asarray(total / len(images), dtype=np.float32)


def fingerprint_of(splits: Sequence[Split]) -> str:
    """Return 16 hex digits for the content: each split's name, shape, pixels and labels, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for split in splits:
        digest.update(f"{split.name} {split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()


def limit_train(faces: Faces, n: int, seed: int) -> Faces:
    """Return the faces with a stratified random subset of n train images, at least one of each class present.

    val and test stay whole. The fingerprint is derived from the old one, n and the seed; a note says so.

    Raises:
        DataError: n is smaller than the number of classes or larger than the train split.
    """
    if not len(faces.classes) <= n <= len(faces.train):
        raise DataError(
            f"cannot limit the train split of {faces.name} to {n:,} images: "
            f"choose {len(faces.classes)} (one a class) to {len(faces.train):,} (all)"
        )
    chosen = _stratified(faces.train.labels, n, np.random.default_rng(seed))
    train = Split("train", faces.train.images[chosen], faces.train.labels[chosen])
    note = f"trained on {n:,} of {len(faces.train):,} train images (stratified, seed {seed})"
    derived = hashlib.blake2b(f"{faces.fingerprint} limit_train {n} {seed}".encode(), digest_size=8)
    return replace(
        faces,
        fingerprint=derived.hexdigest(),
        train=train,
        notes=(*faces.notes, note),
        stored_mean=None,
    )


def _stratified(labels: Labels, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return n sorted indices: one of each class present, the rest in proportion (largest remainder)."""
    counts = np.bincount(labels)
    spare = np.maximum(counts - 1, 0)
    rest = n - np.count_nonzero(counts)
    share = rest * spare / max(spare.sum(), 1)
    quota = np.floor(share).astype(np.intp)
    largest_remainders = np.argsort(quota - share, kind="stable")[: rest - quota.sum()]
    quota[largest_remainders] += 1
    quota += counts > 0
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:take] for label, take in enumerate(quota)]
    return np.sort(np.concatenate(chosen))
