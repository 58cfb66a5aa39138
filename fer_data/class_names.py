"""What the classes of a source are called: FER's expressions in their usual spellings, or names of its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fer_data.csv_rows import did_you_mean
from fer_data.faces import EXPRESSIONS, DataError

CLASSES_FILE = "classes.txt"

_SPELLINGS = {
    "Angry": ("angry", "anger"),
    "Disgust": ("disgust", "disgusted"),
    "Fear": ("fear", "fearful", "afraid"),
    "Happy": ("happy", "happiness"),
    "Sad": ("sad", "sadness"),
    "Surprise": ("surprise", "surprised"),
    "Neutral": ("neutral",),
}
_EXPRESSION_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_NUMBERS = tuple(str(number) for number in range(len(EXPRESSIONS)))
_MAX_CLASSES = 256


def natural(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts face2 before face10; capitals count only between names that differ in nothing else."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], name


def named_classes(root: Path, names: Collection[str]) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Return the classes that folders of these names stand for, and the label of each name.

    Names of expressions, in any case and usual spelling, become FER's classes in FER's order. Names none of
    which is an expression are classes of their own, in natural order; so are numbers, unless they are 0..6,
    or classes.txt names them.

    Raises:
        DataError: some names are expressions and some are not, or there are fewer than 2 names or more than 256.
    """
    if not 2 <= len(names) <= _MAX_CLASSES:
        found = ", ".join(sorted(names, key=natural)[:10]) or "none"
        raise DataError(
            f"{root}: expected 2 to {_MAX_CLASSES} class folders in each split, found {len(names)}: {found}"
        )
    if all(name.isascii() and name.isdigit() for name in names):
        return _numbered_folders(root, names)
    expressions = {name: _EXPRESSION_OF.get(name.casefold()) for name in names}
    if not any(expressions.values()):
        classes = tuple(sorted(names, key=natural))
        return classes, {name: label for label, name in enumerate(classes)}
    _check_all_known(root, expressions)
    classes = tuple(name for name in EXPRESSIONS if name in expressions.values())
    if len(classes) < 2:
        raise DataError(f"{root}: one class only, {classes[0]}; at least 2 are needed")
    return classes, {name: classes.index(expression) for name, expression in expressions.items() if expression}


def numbered_classes(root: Path, labels: Collection[int]) -> tuple[str, ...]:
    """Return the names of classes that a source only numbers from 0.

    They stand in its classes.txt, a line a class; without it 0..6 are FER's expressions, and others stay numbers.

    Raises:
        DataError: there are gaps in the numbers, or more than the file has names for.
    """
    given, written, top = sorted(set(labels)), root / CLASSES_FILE, max(labels)
    if written.is_file():
        names = read_class_names(written)
        if top >= len(names):
            raise DataError(f"{written}: names {len(names)} classes, labels 0..{len(names) - 1}; found label {top}")
        return names
    if given != list(range(top + 1)) or not 2 <= len(given) <= _MAX_CLASSES:
        raise DataError(
            f"{root}: found the labels {', '.join(map(str, given[:10]))}; expected 0, 1, 2, … without gaps: "
            f"name the classes in {CLASSES_FILE} there, a line a class in the order of their labels"
        )
    return EXPRESSIONS if len(given) == len(EXPRESSIONS) else tuple(map(str, given))


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read classes.txt: a name a line, in the order of the labels. Raises DataError."""
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; write it as UTF-8 text, a class a line") from error
    if not 2 <= len(names) <= _MAX_CLASSES or len(set(names)) < len(names):
        raise DataError(f"{path}: expected 2 to {_MAX_CLASSES} different names, a line each; found {len(names)} lines")
    return names


def write_class_names(path: Path, classes: Sequence[str]) -> None:
    """Write classes.txt: a name a line, in the order of the labels."""
    path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def _numbered_folders(root: Path, names: Collection[str]) -> tuple[tuple[str, ...], Mapping[str, int]]:
    labels = {name: int(name) for name in names}
    if (root / CLASSES_FILE).is_file() or set(names) == set(_NUMBERS):
        return numbered_classes(root, labels.values()), labels
    classes = tuple(sorted(names, key=natural))
    return classes, {name: label for label, name in enumerate(classes)}


def _check_all_known(root: Path, expressions: Mapping[str, str | None]) -> None:
    unknown = sorted((name for name, expression in expressions.items() if expression is None), key=natural)
    if unknown:
        hints = "; ".join(f"'{name}' is none{did_you_mean(name, list(_EXPRESSION_OF))}" for name in unknown)
        known = ", ".join(sorted((name for name, expression in expressions.items() if expression), key=natural))
        raise DataError(
            f"{root}: the class folders {known} are FER's expressions, but {hints}; "
            f"rename or remove it, or name no folder like an expression (known: {', '.join(EXPRESSIONS)})"
        )
