"""Subsets of a data set. Each is a data set of its own, with its own fingerprint, note and leaks.

Several are combined in this order: classes, fold, dedupe, limit_train. Folds are therefore stratified over the chosen
classes, images that are also in the resulting val or test are removed from train, and the limit counts what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fer_common.errors import nearest
from fer_data.cache.leaks import mark_leaks, picture_numbers
from fer_data.cache.stratify import Indices, grouped_folds, stratified_choice
from fer_data.faces import FOLD_NOTE, DataError, Faces, Flags, Labels, SoftLabels, Split, derived_fingerprint
from fer_data.images.resizing import room, rows_of
from fer_data.options import DataOptions


def take_subsets(faces: Faces, options: DataOptions) -> Faces:
    """The subset of a data set that the options choose; the whole data set if they choose none.

    Raises:
        DataError: the subset does not fit the data.
    """
    if options.classes is not None:
        faces = choose_classes(faces, options.classes)
    if options.fold is not None and options.folds is not None:
        faces = fold(faces, options.fold, options.folds, options.fold_seed)
    if options.dedupe == "train":
        faces = dedupe_train(faces)
    if options.limit_train is not None:
        faces = limit_train(faces, options.limit_train, options.limit_seed)
    return faces


def choose_classes(faces: Faces, names: Sequence[str]) -> Faces:
    """The images of some classes, with labels renumbered in the order of the names. Case is ignored.

    Soft labels are restricted to these classes and normalised again.

    Raises:
        DataError: lists all unknown, repeated and absent classes; or there are fewer than two.
    """
    wanted = _class_numbers(faces, names)
    chosen = tuple(faces.classes[number] for number in wanted)
    new_number = np.full(len(faces.classes), 255, np.uint8)
    new_number[wanted] = np.arange(len(wanted), dtype=np.uint8)

    def part(split: Split) -> Split:
        kept = _rows(split, np.flatnonzero(np.isin(split.labels, wanted)))
        soft = None if kept.soft_labels is None else kept.soft_labels[:, wanted]
        if soft is not None:
            soft = soft / soft.sum(axis=1, keepdims=True)
        return replace(kept, labels=new_number[kept.labels], soft_labels=soft)

    faces = replace(faces, train=part(faces.train), val=part(faces.val), test=part(faces.test), classes=chosen)
    return _derived(faces, f"classes {','.join(chosen)}", f"of all classes only {', '.join(chosen)}")


def fold(faces: Faces, k: int, n: int, seed: int) -> Faces:
    """The faces with fold k of n (from 1) of train and val together as val, and the other folds as train.

    Folds are stratified by class, and all copies of an image are in one fold. test does not change. If train has soft
    labels and val has none, val's labels count as certain.

    Raises:
        DataError: there is no fold k of n, or a class has fewer than n different images.
    """
    pictures = np.concatenate(picture_numbers(faces.train.images, faces.val.images))
    labels = np.concatenate((faces.train.labels, faces.val.labels))
    _check_fold(faces, k, n, labels, pictures)
    in_val = grouped_folds(labels, pictures, n, np.random.default_rng(seed)) == k - 1
    train, val = _of_both(faces, "train", ~in_val), _of_both(faces, "val", in_val)
    note = f"{FOLD_NOTE}{k} of {n} of train and val (stratified, seed {seed}, copies of a picture in one fold)"
    return _derived(replace(faces, train=train, val=replace(val, soft_labels=None)), f"fold {k} {n} {seed}", note)


def dedupe_train(faces: Faces) -> Faces:
    """The faces without those train images whose pixels are also in val or test.

    Raises:
        DataError: no train image would remain.
    """
    train, val, test = picture_numbers(faces.train.images, faces.val.images, faces.test.images)
    kept = np.flatnonzero(~np.isin(train, np.concatenate((val, test))))
    if not len(kept):
        raise DataError(f"cannot dedupe {faces.name}: each train image is also in val or test; correct the split")
    note = f"{len(train) - len(kept):,} of {len(train):,} train images dropped that are also in val or test"
    return _derived(replace(faces, train=_rows(faces.train, kept)), "dedupe train", note)


def limit_train(faces: Faces, n: int, seed: int) -> Faces:
    """The faces with a stratified random subset of n train images, at least one of each class that is present.

    Raises:
        DataError: n is smaller than the number of classes or larger than the train split.
    """
    if not len(faces.classes) <= n <= len(faces.train):
        raise DataError(
            f"cannot limit the train split of {faces.name} to {n:,} images: "
            f"choose {len(faces.classes)} (one per class) to {len(faces.train):,} (all)"
        )
    chosen = stratified_choice(faces.train.labels, n, np.random.default_rng(seed))
    note = f"trained on {n:,} of {len(faces.train):,} train images (stratified, seed {seed})"
    return _derived(replace(faces, train=_rows(faces.train, chosen)), f"limit_train {n} {seed}", note)


def _derived(faces: Faces, change: str, note: str) -> Faces:
    return mark_leaks(
        replace(
            faces,
            fingerprint=derived_fingerprint(faces.fingerprint, change),
            notes=(*faces.notes, note),
            stored_mean=None,
        )
    )


def _rows(split: Split, rows: Indices) -> Split:
    soft = None if split.soft_labels is None else split.soft_labels[rows]
    return Split(split.name, rows_of(split.images, rows), split.labels[rows], soft)


def _of_both(faces: Faces, name: str, wanted: Flags) -> Split:
    """The chosen rows of train followed by val, as one split."""
    border = len(faces.train)
    first, second = (
        _rows(faces.train, np.flatnonzero(wanted[:border])),
        _rows(faces.val, np.flatnonzero(wanted[border:])),
    )
    height, width = faces.train.images.shape[1:]
    images = room(len(first) + len(second), height, width, faces.train.images.dtype)
    images[: len(first)], images[len(first) :] = first.images, second.images
    soft = None
    if first.soft_labels is not None:
        soft = np.concatenate([_soft(part, len(faces.classes)) for part in (first, second)])
    return Split(name, images, np.concatenate((first.labels, second.labels)), soft)


def _soft(split: Split, classes: int) -> SoftLabels:
    return np.eye(classes, dtype=np.float32)[split.labels] if split.soft_labels is None else split.soft_labels


def _class_numbers(faces: Faces, names: Sequence[str]) -> list[int]:
    """The numbers of the named classes. Raises DataError with everything that is wrong with the names."""
    known = [name.casefold() for name in faces.classes]
    numbers = [known.index(name.casefold()) if name.casefold() in known else None for name in names]
    found = [number for number in numbers if number is not None]
    unknown = [name for name, number in zip(names, numbers, strict=True) if number is None]
    faults = [f"no class '{name}'{nearest(name, [one for one in faces.classes if ',' not in one])}" for name in unknown]
    faults += [
        f"class '{name}' cannot be chosen, since commas separate classes: rename its folder"
        for name in faces.classes
        if "," in name and {part.strip().casefold() for part in name.split(",")} & {one.casefold() for one in unknown}
    ]
    twice = sorted({number for number in found if found.count(number) > 1})
    faults += [f"class {faces.classes[number]} is given twice" for number in twice]
    if len(names) < 2:
        faults.append(f"{len(names)} given, at least 2 are needed")
    faults += [
        f"class {faces.classes[number]} has no images in {split.name}"
        for split in faces.splits
        for number in sorted(set(found))
        if not np.any(split.labels == number)
    ]
    if faults:
        raise DataError(f"classes of {faces.name}: {'; '.join(faults)}; choose among {', '.join(faces.classes)}")
    return found


def _check_fold(faces: Faces, k: int, n: int, labels: Labels, pictures: Indices) -> None:
    if not (n >= 2 and 1 <= k <= n):
        raise DataError(f"there is no fold {k} of {n}: choose fold 1 to N of N folds, N at least 2")
    for number, name in enumerate(faces.classes):
        distinct = len(np.unique(pictures[labels == number]))
        if distinct < n:
            raise DataError(
                f"cannot divide {faces.name} into {n} folds: class {name} has {distinct} pictures in train and val; "
                "choose at most as many folds, or leave the class out"
            )
