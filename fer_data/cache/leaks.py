"""Images that occur more than once in a data set, found by a hash of their pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from fer_data.cache.stratify import Indices
from fer_data.faces import Faces, Images


@dataclass(frozen=True)
class Leaks:
    """Numbers of images, in all splits together unless the name has a split.

    `..._other_label`: those of the field before whose copies in train all have another label. `duplicates`: images of
    train, val and test that repeat an earlier image of the same split. `label_conflict_groups`: sets of equal images
    with more than one label. A blank image has one grey level.
    """

    images: int
    distinct_images: int
    duplicates: tuple[int, int, int]
    val_in_train: int
    val_in_train_other_label: int
    test_in_train: int
    test_in_train_other_label: int
    test_in_train_or_val: int
    label_conflict_groups: int
    blank_images: int


def picture_numbers(*stacks: Images) -> list[Indices]:
    """For each stack [n, height, width] the numbers [n] of its images. Images with equal pixels have equal numbers.

    Numbers start at 0, in the order of first appearance. Pixels are compared by 128 bits of BLAKE2b.
    """
    known: dict[bytes, int] = {}
    return [np.array([known.setdefault(_digest(image), len(known)) for image in stack], np.intp) for stack in stacks]


def leaks(faces: Faces) -> Leaks:
    """Count the images that occur more than once, and the blank ones."""
    train, val, test = numbers = picture_numbers(*(split.images for split in faces.splits))
    everything = np.concatenate(numbers)
    with_label = [
        number * len(faces.classes) + split.labels for number, split in zip(numbers, faces.splits, strict=True)
    ]
    val_in_train, test_in_train = np.isin(val, train), np.isin(test, train)
    labels_of_picture = np.bincount(np.unique(np.concatenate(with_label)) // len(faces.classes))
    return Leaks(
        images=len(everything),
        distinct_images=int(everything.max(initial=-1)) + 1,
        duplicates=(_duplicates(train), _duplicates(val), _duplicates(test)),
        val_in_train=int(val_in_train.sum()),
        val_in_train_other_label=int((val_in_train & ~np.isin(with_label[1], with_label[0])).sum()),
        test_in_train=int(test_in_train.sum()),
        test_in_train_other_label=int((test_in_train & ~np.isin(with_label[2], with_label[0])).sum()),
        test_in_train_or_val=int(np.isin(test, np.concatenate((train, val))).sum()),
        label_conflict_groups=int((labels_of_picture > 1).sum()),
        blank_images=sum(_blank(split.images) for split in faces.splits),
    )


def mark_leaks(faces: Faces) -> Faces:
    """The faces with `leaked` set in val (images also in train) and in test (images also in train or val)."""
    train, val, test = picture_numbers(faces.train.images, faces.val.images, faces.test.images)
    return replace(
        faces,
        train=replace(faces.train, leaked=None),
        val=replace(faces.val, leaked=np.isin(val, train)),
        test=replace(faces.test, leaked=np.isin(test, np.concatenate((train, val)))),
    )


def _digest(image: Images) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _duplicates(numbers: Indices) -> int:
    return len(numbers) - len(np.unique(numbers))


def _blank(images: Images) -> int:
    return int((images.min(axis=(1, 2)) == images.max(axis=(1, 2))).sum())
