"""The type that every data set becomes: three splits of grey faces with their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fer_common.errors import UserError

GreyLevels = NDArray[np.uint8]
Images = NDArray[np.uint8 | np.float32]
Labels = NDArray[np.uint8]
SoftLabels = NDArray[np.float32]
Flags = NDArray[np.bool_]
MeanImage = NDArray[np.float32]

EXPRESSIONS = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
SPLITS = ("train", "val", "test")


class DataError(UserError):
    """Faulty data or an unusable path; the message has the rule, the given value and the way out."""


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set.

    images: [n, height, width], grey levels on the scale 0..255, possibly memory-mapped: uint8 from any source, float32
    (possibly outside the scale) after preprocessing.

    labels: [n] uint8, indices into the classes.

    soft_labels: [n, classes] float32, rows sum to 1 and the label has the largest share; None if the source has none.

    leaked: [n] bool, whether an image's pixels are also in train (for val), or in train or val (for test). None for
    train, and if it was not checked.
    """

    name: str
    images: Images
    labels: Labels
    soft_labels: SoftLabels | None = None
    leaked: Flags | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"split {self.name}: images {self.images.shape} and labels {self.labels.shape} do not fit: "
                "expected [n, height, width] and [n]"
            )
        if self.soft_labels is not None and (self.soft_labels.ndim != 2 or len(self.soft_labels) != len(self)):
            raise DataError(f"split {self.name}: soft labels {self.soft_labels.shape}, expected [{len(self)}, classes]")
        if self.leaked is not None and self.leaked.shape != self.labels.shape:
            raise DataError(f"split {self.name}: leaked {self.leaked.shape}, expected [{len(self)}]")

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, classes: int) -> list[int]:
        """Number of images per class, for labels 0..classes-1."""
        return [int(count) for count in np.bincount(self.labels, minlength=classes)]


FOLD_NOTE = "val is fold "
"""The beginning of the note with which packed faces record that val is a fold."""


@dataclass(frozen=True, eq=False)
class Faces:
    """A data set: its name, the hash of its content, and its three splits.

    `notes` are shown beside any number from this data. `stored_mean` is the mean image of train, if it is already
    known.
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

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, val and test."""
        return self.train, self.val, self.test

    @property
    def sizes(self) -> str:
        """The number of images of each split as text: `train 600, val 120, test 120`."""
        return ", ".join(f"{split.name} {len(split):,}" for split in self.splits)

    @property
    def val_is_fold(self) -> bool:
        """Whether val is a fold of train and val instead of the source's own split."""
        return any(note.startswith(FOLD_NOTE) for note in self.notes)

    def mean_image(self) -> MeanImage:
        """The pixelwise mean of the train split: [height, width] float32, 0..255."""
        return self.stored_mean if self.stored_mean is not None else mean_of(self.train.images)


def mean_of(images: Images) -> MeanImage:
    """The pixelwise mean of [n, height, width] as [height, width] float32, from exact sums."""
    total = images.sum(axis=0, dtype=np.uint64)
    return np.asarray(total / len(images), dtype=np.float32)


def fingerprint_of(splits: Sequence[Split]) -> str:
    """16 hex digits for the content: each split's name, shape, pixels, labels and soft labels, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for split in splits:
        digest.update(f"{split.name} {split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
        if split.soft_labels is not None:
            digest.update(np.ascontiguousarray(split.soft_labels).data)
    return digest.hexdigest()


def derived_fingerprint(fingerprint: str, change: str) -> str:
    """16 hex digits for a data set of this fingerprint after a change; `change` describes it in words."""
    return hashlib.blake2b(f"{fingerprint} {change}".encode(), digest_size=8).hexdigest()
