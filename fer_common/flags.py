"""Options declared once: a field of a pydantic model with a `Flag` is also a command line option.

The field's annotation gives the type, the choices and the range; its default is the option's. The same declaration
gives the option and its help (`add_flags`), the message about a bad value (`explain`) and the way back to a command
line (`command_line`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fer_common.faults import rule
from fer_common.quantities import read_number, read_whole_number


@dataclass(frozen=True)
class Flag:
    """How a field is written on a command line.

    Args:
        help: one line for `--help`, to which the default is appended.
        metavar: the placeholder for the value.
        name: the option without dashes, if it is not the field's name or alias.
        group: the heading in `--help`.
        read: text -> value, if the annotation does not determine it.
        write: model -> texts of the value, the reverse of `read`; each is written as `--option text`.
        repeat: the option may be given several times; the field gets a list.
        fixed: a resume cannot change it.
        positional: a positional argument; a tuple takes all remaining ones, a field with a default is optional.
    """

    help: str
    metavar: str | None = None
    name: str | None = None
    group: str = ""
    read: Callable[[str], Any] | None = None
    write: Callable[[Any], Sequence[str]] | None = None
    repeat: bool = False
    fixed: bool = False
    positional: bool = False


def flags(model: type[BaseModel]) -> dict[str, Flag]:
    """Field -> flag, for the fields of `model` that are command line options."""
    return {
        name: part for name, field in model.model_fields.items() for part in field.metadata if isinstance(part, Flag)
    }


def option(model: type[BaseModel], name: str) -> str:
    """The option of a field, as `--limit-train`."""
    flag = flags(model)[name]
    if flag.positional:
        return flag.metavar or name
    return "--" + (flag.name or model.model_fields[name].alias or name).replace("_", "-")


def add_flags(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    model: type[BaseModel],
    names: Iterable[str] | None = None,
) -> None:
    """Add the options of `model`, its own before inherited ones, or only of its fields `names`.

    An option that is not given is parsed as None.
    """
    declared = flags(model)
    for name in sorted(declared, key=lambda name: _place(model, name)) if names is None else names:
        flag, field = declared[name], model.model_fields[name]
        kind = _kind(field.annotation, flag)
        if kind.get("action") != "store_true":
            kind["metavar"] = flag.metavar
        default = str(field.default) if isinstance(field.default, (str, int, Path)) else ""
        shown = f" (default {default})" if default and field.default is not False and "default" not in flag.help else ""
        how = {"default": None, "help": (flag.help + shown).replace("%", "%%"), **kind}
        if flag.positional:
            many = get_origin(field.annotation) is tuple
            parser.add_argument(name, **how, nargs=_PLACES[many, field.is_required()])
        else:
            parser.add_argument(option(model, name), dest=field.alias or name, required=field.is_required(), **how)


_PLACES = {(True, True): "+", (True, False): "*", (False, True): None, (False, False): "?"}
"""How many arguments a positional one takes: (a tuple, required) -> argparse's nargs."""


def _place(model: type[BaseModel], name: str) -> int:
    """Positional arguments in their order, then the options of `model`, then those of its bases."""
    if flags(model)[name].positional:
        return -1
    return next(place for place, one in enumerate(model.__mro__) if name in get_annotations(one))


def _kind(annotation: Any, flag: Flag) -> dict[str, Any]:
    """The arguments for argparse that follow from a field's type."""
    literal = get_origin(annotation) is Literal
    kinds = [annotation] if literal else [kind for kind in get_args(annotation) if kind is not NoneType] or [annotation]
    kind = get_args(kinds[0])[0] if get_origin(kinds[0]) is Annotated else kinds[0]
    if kind is bool:
        return {"action": "store_true"}
    readers: dict[Any, Callable[[str], Any]] = {int: read_whole_number, float: read_number, Path: Path}
    reading = {"type": flag.read or readers.get(kind, str)}
    choices = {"choices": get_args(kind)} if get_origin(kind) is Literal and len(kinds) == 1 else {}
    return reading | choices | ({"action": "append"} if flag.repeat else {})


def given_values(given: argparse.Namespace, model: type[BaseModel]) -> dict[str, Any]:
    """The values given for `model`'s options, by field or alias, for its constructor."""
    names = [model.model_fields[name].alias or name for name in flags(model)]
    return {name: value for name in names if (value := getattr(given, name, None)) is not None}


def command_line(options: BaseModel, names: Iterable[str] | None = None) -> list[str]:
    """The arguments for these options: those that differ from their defaults, or the fields `names`."""
    model = type(options)
    words: list[str] = []
    for name, flag in flags(model).items():
        value = getattr(options, name)
        if value == model.model_fields[name].default or (names is not None and name not in names):
            continue
        if value is True:
            words.append(option(model, name))
            continue
        for text in flag.write(options) if flag.write else [str(value)]:
            words += [option(model, name), text]
    return words


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One message per fault: the option, the value given and the rule."""
    return [_explained(fault, model) for fault in error.errors()]


def _explained(fault: Any, model: type[BaseModel]) -> str:
    if not fault["loc"]:
        return rule(fault)
    place = str(fault["loc"][0])
    name = next((name for name, field in model.model_fields.items() if place in (name, field.alias)), place)
    flag = flags(model).get(name)
    shown = option(model, name) if flag else place
    if flag and flag.repeat:  # the rule names what is wrong among its values
        return f"{shown}: {rule(fault)}"
    value = f"{fault['input']:g}" if isinstance(fault["input"], float) else fault["input"]
    return f"{shown} {value}: {rule(fault)}"
