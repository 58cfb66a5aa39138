"""Commands declared once: a frozen model whose fields with a `Flag` are the command's arguments.

The first line of its docstring is its help line; the rest, such as an example, is the end of its `--help`.
"""

from __future__ import annotations

import argparse
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from inspect import getdoc
from typing import Annotated, Any, ClassVar

from pydantic import ValidationError

from fer_common.console import refuse_lost_output
from fer_common.errors import Parser, UserError, run_command
from fer_common.flags import Flag, add_flags, explain, given_values
from fer_common.frozen import Frozen


class Verb(Frozen):
    """One command with its arguments."""

    way_out: ClassVar[str] = ""
    """As in `Parser`."""
    needs_output: ClassVar[bool] = True
    """Whether the command has failed if the disk behind stdout had no space."""

    debug: Annotated[bool, Flag("show the traceback of an error")] = False
    argv: tuple[str, ...] = ()
    """The arguments as given."""

    @abstractmethod
    def __call__(self) -> int:
        """Run the command; return the exit code."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        add_flags(parser, cls)

    @classmethod
    def fields_given(cls, given: argparse.Namespace) -> dict[str, Any]:
        """The given arguments as fields of the constructor."""
        return given_values(given, cls)


def add_verbs(
    parser: argparse.ArgumentParser, verbs: Mapping[str, type[Verb]], metavar: str = "VERB"
) -> argparse._SubParsersAction[Parser]:
    """Add the verbs, each with its name. Subparsers for verbs of a verb can be added to the result."""
    parsers = parser.add_subparsers(dest="verb", required=True, metavar=metavar, parser_class=Parser)
    for name, verb in verbs.items():
        summary = (getdoc(verb) or "").partition("\n")[0]
        line = summary[:1].lower() + summary[1:].removesuffix(".").replace("%", "%%")  # argparse formats it
        describe(parsers.add_parser(name, help=line), verb)
    return parsers


def describe(parser: Parser, verb: type[Verb]) -> None:
    """Let `parser` read the arguments of one verb."""
    parser.description, _, parser.epilog = (getdoc(verb) or "").partition("\n")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.way_out = verb.way_out
    parser.set_defaults(kind=verb)
    verb.add_arguments(parser)


def parsed(parser: Parser, argv: Sequence[str]) -> Verb:
    """The verb of a command line. Raises UserError with every fault."""
    given, _ = parser.parse_known_args(argv)
    kind: type[Verb] = given.kind
    faults = list(given.faults)
    try:
        verb = kind.model_validate({**kind.fields_given(given), "argv": tuple(argv)})
    except ValidationError as error:
        faults += explain(error, kind)
    except UserError as error:
        if not faults:
            raise
        faults.append(str(error))
    if faults:
        raise UserError("; ".join(faults))
    return verb


def run(verb: Verb) -> int:
    """Run a verb; return the exit code. Raises OSError if its output is lost and it needs it."""
    code = verb()
    if verb.needs_output:
        refuse_lost_output()
    return code


def run_verb(parser: Callable[[], Parser], argv: Sequence[str], show: Callable[[str], object]) -> int:
    """Run the verb of a command line; return the exit code, as `run_command` does."""
    return run_command(argv, lambda: run(parsed(parser(), argv)), show)
