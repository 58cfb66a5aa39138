import argparse
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fer_common.flags import Flag, add_flags, command_line, explain, flags, given_values, option


class Shared(BaseModel):
    model_config = ConfigDict(frozen=True)

    out: Annotated[Path, Flag("folder of all sweeps", "DIR")] = Path("runs")


class Asked(Shared):
    space: Annotated[str, Flag("a space", "SPACE", positional=True)]
    runs: Annotated[tuple[str, ...], Flag("runs", "RUN", positional=True)] = ()
    max_epochs: Annotated[int | None, Field(alias="epochs", ge=1), Flag("epochs of a trial", "N")] = None
    device: Annotated[Literal["cpu", "cuda"], Flag("where the net computes")] = "cpu"
    share: Annotated[float, Flag("of a GPU, as 50%", "X")] = 0.5
    dry_run: Annotated[bool, Flag("start nothing")] = False
    settings: Annotated[
        tuple[str, ...], Flag("as lr=0.1", "KEY=VALUE", name="set", repeat=True, write=lambda asked: asked.settings)
    ] = ()
    unseen: int = 3


def parsed(*words: str) -> Asked:
    parser = argparse.ArgumentParser(prog="prog")
    add_flags(parser, Asked)
    return Asked.model_validate(given_values(parser.parse_args(words), Asked))


def test_fields_with_a_flag_are_options() -> None:
    assert list(flags(Asked)) == ["out", "space", "runs", "max_epochs", "device", "share", "dry_run", "settings"]
    names = ("space", "max_epochs", "settings", "dry_run")
    assert [option(Asked, name) for name in names] == ["SPACE", "--epochs", "--set", "--dry-run"]


def test_what_is_not_given_has_its_default() -> None:
    assert parsed("lenet") == Asked(space="lenet")


def test_every_kind_of_value_arrives() -> None:
    given = parsed(
        *("lenet", "night/3", "night/5", "--epochs", "4", "--device", "cuda", "--share", "0.25", "--dry-run"),
        *("--set", "lr=0.1", "--set", "flip=0.5", "--out", "elsewhere"),
    )
    assert given == Asked(
        space="lenet", runs=("night/3", "night/5"), epochs=4, device="cuda", share=0.25, dry_run=True,
        settings=("lr=0.1", "flip=0.5"), out=Path("elsewhere"),
    )  # fmt: skip


def test_the_command_line_gives_what_differs_from_the_defaults() -> None:
    asked = Asked(space="lenet", epochs=4, dry_run=True, settings=("lr=0.1", "flip=0.5"), out=Path("elsewhere"))
    named = ["max_epochs", "dry_run", "settings", "out"]
    words = command_line(asked, named)
    assert words == ["--out", "elsewhere", "--epochs", "4", "--dry-run", "--set", "lr=0.1", "--set", "flip=0.5"]
    assert parsed("lenet", *words) == asked
    assert command_line(asked, ["share"]) == []


def test_help_has_own_options_before_shared_ones_and_their_defaults() -> None:
    parser = argparse.ArgumentParser(prog="prog")
    add_flags(parser, Asked)
    printed = " ".join(parser.format_help().split())
    assert printed.index("--epochs N") < printed.index("--out DIR")
    assert "--out DIR folder of all sweeps (default runs)" in printed
    assert "of a GPU, as 50%" in printed
    assert "--unseen" not in printed


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"space": "lenet", "epochs": 0}, ["--epochs 0: must be at least 1"]),
        ({"space": "lenet", "epochs": 0, "device": "tpu"},
         ["--epochs 0: must be at least 1", "--device tpu: must be 'cpu' or 'cuda'"]),
        ({"space": "lenet", "share": "half"},
         ["--share half: must be a valid number, unable to parse string as a number"]),
        ({"space": "lenet", "unseen": "x"},
         ["unseen x: must be a valid integer, unable to parse string as an integer"]),
    ],
)  # fmt: skip
def test_every_bad_value_is_named_by_its_option(given: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(ValidationError) as raised:
        Asked.model_validate(given)
    assert explain(raised.value, Asked) == says
