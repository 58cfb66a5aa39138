"""The command line options that choose and shape a data set, for every program that takes one."""

from __future__ import annotations

import argparse
import re
from typing import Any, get_args

from pydantic import ValidationError

from fer_data.faces import DataError
from fer_data.options import DataOptions, Dedupe, LabelKind, ResizeMethod, labels_named_today


def add_data_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options that say how a source is read and which part of it is wanted, but for --limit-train."""
    add = parser.add_argument
    add("--resize", type=int, metavar="SIDE", help="give every image this side, 8..512 pixels")
    add("--resize-method", choices=get_args(ResizeMethod), help="default area (Pillow's BOX)")
    add("--ferplus", metavar="PATH", help="FER+'s fer2013new.csv, for its labels")
    add(
        "--labels",
        type=labels_named_today,
        choices=get_args(LabelKind),
        help="FER2013's (default), FER+'s most frequent vote, FER+'s own majority, or FER+'s shares of votes",
    )
    add("--skip-bad", action="store_true", default=None, help="leave faulty rows and files out, and say which")
    add("--dedupe", choices=get_args(Dedupe), help="train: drop train images that also stand in val or test")
    add("--classes", type=_names, metavar="A,B,…", help="these classes alone, as happy,sad, numbered in this order")
    add("--fold", type=_fold, metavar="K/N", help="cross-validation: fold K of N of train and val is val")


def data_options(given: argparse.Namespace, source: str | None) -> DataOptions:
    """Return what was given on a command line with `add_data_options`, and with --limit-train where there is one.

    Args:
        given: the parsed command line; what is None was not given.
        source: file, folder, or None for the synthetic faces.

    Raises:
        DataError: every option that is wrong, or does not go with another.
    """
    values = {name: value for name in DataOptions.model_fields if (value := getattr(given, name, None)) is not None}
    values.pop("source", None)
    fold, folds = values.pop("fold", (None, None))
    try:
        return DataOptions(**values, source=source, fold=fold, folds=folds)
    except ValidationError as error:
        raise DataError("; ".join(_in_words(fault) for fault in error.errors())) from error


def data_arguments(data: DataOptions) -> list[str]:
    """Return the command line that gives these options, the reverse of `data_options`."""
    given = data.model_dump(exclude_defaults=True)
    words = ["--data", given.pop("source", "synthetic")]
    if "fold" in given:
        given["fold"] = f"{given['fold']}/{given.pop('folds')}"
    for name in ("fold_seed", "limit_seed"):
        given.pop(name, None)
    for name, value in given.items():
        option = "--" + name.replace("_", "-")
        words += [option] if value is True else [option, ",".join(value) if isinstance(value, tuple) else str(value)]
    return words


def _in_words(fault: Any) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    option = str(fault["loc"][0]).replace("_", "-")
    return f"--{option} {fault['input']}: {message[0].lower()}{message[1:]}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _fold(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}': expected K/N, as 1/5 for the first of five folds")
    return int(match[1]), int(match[2])
