"""Class names of a source: FER's expressions in any usual spelling, or the source's own names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from fer_common.errors import nearest
from fer_data.faces import EXPRESSIONS, DataError, Split

CLASSES_FILE = "classes.txt"

_SPELLINGS = {
    "Angry": ("angry", "anger"),
    "Disgust": ("disgust", "disgusted"),
    "Fear": ("fear", "fearful", "afraid"),
    "Happy": ("happy", "happiness"),
    "Sad": ("sad", "sadness"),
    "Surprise": ("surprise", "surprised"),
    "Neutral": ("neutral",),
    "Contempt": ("contempt", "contemptuous"),  # a class of CK+ and AffectNet, not of FER2013
}
_EXPRESSION_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_NUMBERS = tuple(str(number) for number in range(len(EXPRESSIONS)))
_MAX_CLASSES = 256


Given = TypeVar("Given", str, int)


@dataclass(frozen=True)
class Classes(Generic[Given]):
    """The names of the classes in the order of their labels, and the label of each name or number in the source.

    `notes` tell how the names were found.
    """

    names: tuple[str, ...]
    label_of: Mapping[Given, int]
    notes: tuple[str, ...] = ()


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts face2 before face10. Case matters only between names that are otherwise equal."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], name


def named_classes(root: Path, names: Collection[str]) -> Classes[str]:
    """The classes of a source whose class folders have these names.

    Names of expressions, in any case and usual spelling, become FER's classes in FER's order, followed by Contempt and
    then by other names in natural order. If no name is an expression of FER, all names are classes as they are written,
    in natural order. Numbers are read as in `numbered_classes`, but gaps are allowed.

    Raises:
        DataError: a name resembles an expression but is none, while other names are expressions; or there are fewer
            than 2 names or more than 256.
    """
    if not 2 <= len(names) <= _MAX_CLASSES:
        found = ", ".join(sorted(names, key=natural)[:10]) or "none"
        raise DataError(
            f"{root}: expected 2 to {_MAX_CLASSES} class folders in each split, found {len(names)}: {found}"
        )
    if all(name.isascii() and name.isdigit() for name in names):
        return _numbered_folders(root, names)
    expressions = {name: _EXPRESSION_OF.get(name.casefold()) for name in names}
    if not any(expression in EXPRESSIONS for expression in expressions.values()):
        return _as_written(names)
    others = sorted((name for name, expression in expressions.items() if expression is None), key=natural)
    _refuse_misspelt(root, others)
    classes = (*(name for name in _SPELLINGS if name in expressions.values()), *others)
    if len(classes) < 2:
        raise DataError(f"{root}: one class only, {classes[0]}; at least 2 are needed")
    return Classes(classes, {name: classes.index(expression or name) for name, expression in expressions.items()})


def numbered_classes(root: Path, labels: Collection[int]) -> Classes[int]:
    """The classes of a source that has only numbers.

    The lines of its classes.txt are their names: line k, counted from 0, is the name of number k. If the numbers go
    beyond the last line and there are as many numbers as lines, the lines name the numbers in their order (1..7 in
    RAF-DB). Without the file, 0..6 are FER's expressions; other numbers are their own names, and a note says so.

    Raises:
        DataError: classes.txt does not fit the numbers; or there is none, and the numbers have gaps.
    """
    given = sorted(set(labels))
    if (root / CLASSES_FILE).is_file():
        return _by_classes_file(root / CLASSES_FILE, given)
    if given != list(range(len(given))) or not 2 <= len(given) <= _MAX_CLASSES:
        raise DataError(
            f"{root}: found the labels {_some(given)}; expected 0, 1, 2, … without gaps: "
            f"name the classes in {CLASSES_FILE} there, one per line in the order of their labels"
        )
    names = EXPRESSIONS if len(given) == len(EXPRESSIONS) else tuple(map(str, given))
    return Classes(names, {number: number for number in given}, (_numbers_note(given, names),))


def relabelled(splits: Mapping[str, Split], label_of: Mapping[int, int]) -> dict[str, Split]:
    """The splits with the source's numbers replaced by the labels of its classes."""
    table = np.zeros(_MAX_CLASSES, np.uint8)
    table[list(label_of)] = list(label_of.values())
    return {name: replace(split, labels=table[split.labels]) for name, split in splits.items()}


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read classes.txt: one name per line, in the order of the labels. Raises DataError."""
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; write it as UTF-8 text, one class per line") from error
    if not 2 <= len(names) <= _MAX_CLASSES or len(set(names)) < len(names):
        raise DataError(f"{path}: expected 2 to {_MAX_CLASSES} different names, one per line; found {len(names)} lines")
    return names


def write_class_names(path: Path, classes: Sequence[str]) -> None:
    """Write classes.txt: one name per line, in the order of the labels."""
    path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def _numbered_folders(root: Path, names: Collection[str]) -> Classes[str]:
    if not (root / CLASSES_FILE).is_file() and set(names) != set(_NUMBERS):
        classes = _as_written(names)
        numbers = sorted(map(int, names))
        return replace(classes, notes=(_numbers_note(numbers, classes.names),))
    found = numbered_classes(root, {int(name) for name in names})
    return Classes(found.names, {name: found.label_of[int(name)] for name in names}, found.notes)


def _as_written(names: Collection[str]) -> Classes[str]:
    classes = tuple(sorted(names, key=natural))
    return Classes(classes, {name: label for label, name in enumerate(classes)})


def _by_classes_file(path: Path, given: Sequence[int]) -> Classes[int]:
    names = read_class_names(path)
    if given[-1] < len(names):
        return Classes(names, {number: number for number in given})
    if len(given) != len(names):
        raise DataError(
            f"{path}: names {len(names)} classes, which are 0..{len(names) - 1}; found {_some(given)}: "
            "write one line per number from 0 on, or one per number that occurs"
        )
    shown = ", ".join(f"{number} {name}" for number, name in zip(given, names, strict=True))
    return Classes(
        names,
        {number: label for label, number in enumerate(given)},
        (f"{CLASSES_FILE} names the numbers in their order: {shown}",),
    )


def _numbers_note(numbers: Sequence[int], names: Sequence[str]) -> str:
    """A note: the source has no class names, which ones are assumed, and how to provide them."""
    if tuple(names) == EXPRESSIONS:
        order = ", ".join(f"{number} {name}" for number, name in enumerate(names))
        made = f"they are read in FER2013's order ({order}), but AffectNet and RAF-DB have other orders"
    else:
        made = "they are called by their numbers"
    return (
        f"the source only numbers its classes ({_some(numbers)}): {made}; to name them, write {CLASSES_FILE} into "
        "its folder, one name per line in the order of the numbers"
    )


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return shown if len(numbers) <= 10 else f"{shown}, …"


def _refuse_misspelt(root: Path, others: Sequence[str]) -> None:
    """Refuse names that resemble an expression: a misspelt folder would become a further class."""
    hints = [f"'{name}'{hint}" for name in others if (hint := nearest(name, list(_EXPRESSION_OF)))]
    if hints:
        raise DataError(
            f"{root}: class folders beside FER's expressions that are nearly named like one: {'; '.join(hints)} "
            "Rename or remove them; a name unlike any expression is a class of its own"
        )
