from typing import Annotated, Literal

import pytest
from pydantic import Field

from fer_common.errors import Parser, UserError
from fer_common.flags import Flag
from fer_common.verbs import Verb, add_verbs, parsed, run_verb


class Greet(Verb):
    """Greet a person.

    Example: prog greet ann --times 2
    """

    way_out = "; 'greet' knows --times alone"
    name: Annotated[str, Flag("whom", "NAME", positional=True)]
    times: Annotated[int, Field(ge=1, le=3), Flag("how often", "N")] = 1
    mood: Annotated[Literal["calm", "loud"], Flag("how")] = "calm"

    def __call__(self) -> int:
        if self.name == "nobody":
            raise UserError("nobody: give a person's name")
        return self.times


class Leave(Verb):
    """Go away."""

    def __call__(self) -> int:
        return 0


def parser() -> Parser:
    top = Parser(prog="prog")
    verbs = add_verbs(top, {"greet": Greet})
    add_verbs(verbs.add_parser("go"), {"away": Leave}, "WHERE")
    return top


def run(*argv: str) -> tuple[int, list[str]]:
    said: list[str] = []
    return run_verb(parser, argv, said.append), said


def test_a_verb_is_made_of_its_command_line_and_run() -> None:
    assert run("greet", "ann", "--times", "2") == (2, [])
    assert parsed(parser(), ["greet", "ann"]) == Greet(name="ann", argv=("greet", "ann"))
    assert parsed(parser(), ["go", "away"]) == Leave(argv=("go", "away"))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "error: the following arguments are required: VERB; see prog --help"),
        (["gret"], "error: argument VERB: unknown 'gret'; did you mean 'greet'? (known: go, greet); see prog --help"),
        (["go", "awy"], "error: argument WHERE: unknown 'awy'; did you mean 'away'? (known: away); see prog go --help"),
        (["greet"], "error: the following arguments are required: NAME; see prog greet --help"),
        (
            ["greet", "ann", "--loud"],
            "error: unknown argument --loud; 'greet' knows --times alone; see prog greet --help",
        ),
        (["greet", "ann", "--times", "4"], "error: --times 4: must be at most 3"),
        (
            ["greet", "ann", "--times", "4", "--mood", "blue"],
            "error: argument --mood: unknown 'blue' (known: calm, loud); see prog greet --help; --times 4: must be at most 3",
        ),
        (["greet", "nobody"], "error: nobody: give a person's name"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv: list[str], says: str) -> None:
    assert run(*argv) == (2, [says])


def test_debug_shows_where_an_error_comes_from() -> None:
    with pytest.raises(UserError, match="nobody"):
        run("greet", "nobody", "--debug")


def test_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    assert "greet     greet a person\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("greet", "--help")
    printed = capsys.readouterr().out
    assert "Greet a person.\n" in printed
    assert printed.endswith("Example: prog greet ann --times 2\n")
