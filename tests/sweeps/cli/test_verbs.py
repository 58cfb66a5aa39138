"""Every verb is declared once: its class gives its help, with an example that is a command of it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from inspect import getdoc

import pytest

from fer_common.errors import UserError
from fer_common.verbs import parsed
from sweeps.cli.main import VERBS, parser


@pytest.mark.parametrize("name", VERBS)
def test_the_example_of_a_verb_is_a_command_of_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args([name, "--help"])
    summary, _, rest = (getdoc(VERBS[name]) or "").partition("\n\n")
    example = rest.removeprefix("Example: ").splitlines()[0]
    shown = capsys.readouterr().out
    assert summary in " ".join(shown.split())
    assert shown.endswith(f"Example: {example}\n")
    prefix, argv = shlex.split(example)[:3], shlex.split(example.split(" > ")[0])[3:]
    assert prefix == ["python", "-m", "sweeps"]
    assert type(parsed(parser(), argv)) is VERBS[name]


def test_what_is_out_of_range_is_said_by_its_option() -> None:
    with pytest.raises(UserError, match="--top 0: must be at least 1"):
        parsed(parser(), ["ensemble", "--sweep", "night", "--top", "0"])


def test_help_and_options_wait_for_no_heavy_library() -> None:
    """Each of these takes from .3 to 3 s of processor time to load."""
    heavy = {"torch", "scipy", "matplotlib", "ray", "mlflow", "sklearn", "pandas", "fastapi"}
    code = f"import sys, sweeps, sweeps.cli.main; print(*{heavy} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    assert loaded.stdout.split() == []
