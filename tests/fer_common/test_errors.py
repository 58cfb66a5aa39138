import sys
from collections.abc import Callable

import pytest

from fer_common.errors import Parser, UserError, did_you_mean, nearest, run_command, without_password


def fail(error: BaseException) -> Callable[[], int]:
    def act() -> int:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "code", "shown"),
    [
        (lambda: 7, 7, []),
        (fail(UserError("--n 0: must be at least 1")), 2, ["error: --n 0: must be at least 1"]),
        (fail(PermissionError(13, "Permission denied", "/srv/runs")), 2, ["error: /srv/runs: Permission denied"]),
        (fail(OSError("the disk is gone")), 2, ["error: the disk is gone"]),
        (fail(KeyboardInterrupt()), 130, []),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(act: Callable[[], int], code: int, shown: list[str]) -> None:
    said: list[str] = []
    assert run_command(["run"], act, said.append) == code
    assert said == shown


def test_a_fault_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command([], lambda: 1 // 0, sys.exit)


def test_debug_shows_where_an_error_comes_from() -> None:
    with pytest.raises(UserError, match="wrong"):
        run_command(["run", "--debug"], fail(UserError("wrong")), sys.exit)


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    assert nearest("ALEXNET", ["alexnet", "lenet"]) == "; did you mean 'alexnet'?"
    assert nearest("zebra", ["alexnet", "lenet"]) == ""


def test_all_known_names_are_listed_unless_there_are_many() -> None:
    assert did_you_mean("lenett", ["lenet", "alexnet"]) == "; did you mean 'lenet'? (known: alexnet, lenet)"
    assert did_you_mean("zebra", []) == " (known: none)"
    many = [f"space_{number}" for number in range(40)]
    assert did_you_mean("space_07", many).count("space_") == 1
    assert did_you_mean("zebra", many).count("space_") == 40


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--epohcs", "3"], "unknown argument --epohcs 3; did you mean '--epochs'?; see prog --help"),
        (["--epo", "3"], "unknown argument --epo 3; did you mean '--epochs'?"),
        (["--net", "lenett"], "argument --net: unknown 'lenett'; did you mean 'lenet'? (known: alexnet, lenet)"),
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (
            ["--net", "x", "--epochs", "many", "--loud"],
            "argument --net: unknown 'x' (known: alexnet, lenet); argument --epochs: invalid int value: 'many'; "
            "unknown argument --loud; see prog --help",
        ),
    ],
)
def test_a_parser_names_what_is_wrong_and_what_is_near(argv: list[str], says: str) -> None:
    parser = Parser(prog="prog")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--net", choices=["lenet", "alexnet"])
    with pytest.raises(UserError) as raised:
        parser.parse_args(argv)
    assert says in str(raised.value)


def test_a_parser_may_say_what_to_do_about_an_unknown_option() -> None:
    parser = Parser(prog="prog")
    parser.way_out = "; the options are those of the sweep's start"
    with pytest.raises(UserError, match="unknown argument --x; the options are those of the sweep's start"):
        parser.parse_args(["--x"])


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://ann:secret@team:5000/x", "http://ann:…@team:5000/x"),
        ("http://:secret@team", "http://:…@team"),
        ("http://ann:se#cr/et?@team", "http://ann:…@team"),
        ("postgresql+psycopg://ann:se%40cret@h/db", "postgresql+psycopg://ann:…@h/db"),
        ("postgresql://h/db?user=ann&password=secret&x=1", "postgresql://h/db?user=ann&password=…&x=1"),
        ("postgresql://h/db?password=…: refused", "postgresql://h/db?password=…: refused"),
        ("API request to http://ann:secret@team:1/api failed (a@b)", "API request to http://ann:…@team:1/api failed (a@b)"),
        ("http://team:5000/me@here", "http://team:5000/me@here"),
        ("http://ann@team", "http://ann@team"),
        ("sqlite:////home/me@work:1/x.db", "sqlite:////home/me@work:1/x.db"),
    ],
)  # fmt: skip
def test_passwords_are_hidden_and_nothing_else(uri: str, shown: str) -> None:
    assert without_password(uri) == shown
    assert without_password(shown) == shown
