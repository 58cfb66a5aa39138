"""`python -m fer_models [NAME] [--json] [--picture FILE]`: all nets with their costs, or one net layer by layer."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import TypeAdapter

from fer_common.console import let_no_output_fail
from fer_common.errors import Parser, did_you_mean
from fer_common.flags import Flag
from fer_common.verbs import Verb, describe, run_verb
from fer_models.configs.net_config import NET_CONFIGS, NET_NAMES, NetConfig
from fer_models.errors import ModelError

if TYPE_CHECKING:
    from fer_models.listing import NetSummary

CLASSES = 7
_NOTE = f"{CLASSES} classes, default options; MB of fp32 parameters; multiply-adds per face, in millions"
_CONFIG: TypeAdapter[NetConfig] = TypeAdapter(NetConfig)


class Nets(Verb):
    """List the nets with their sizes and costs, or one net layer by layer.

    Example: python -m fer_models lenet --picture lenet.png
    """

    name: Annotated[str | None, Flag("one of: " + ", ".join(NET_NAMES), "NAME", positional=True)] = None
    as_json: Annotated[bool, Flag("print JSON", name="json")] = False
    picture: Annotated[Path | None, Flag("draw the net: layers, shapes, parameters", "FILE.png")] = None

    def __call__(self) -> int:
        if self.name is None:
            if self.picture is not None:
                raise ModelError("--picture needs a net, one of " + ", ".join(NET_NAMES))
            text = _all_nets(as_json=self.as_json)
        else:
            text = _one_net(self.name, as_json=self.as_json)
            if self.picture is not None:
                _draw(self.name, self.picture)
        sys.stdout.write(text + "\n")
        return 0


def parser() -> Parser:
    """The command line of `python -m fer_models`."""
    one = Parser(prog="python -m fer_models")
    describe(one, Nets)
    return one


def main(argv: Sequence[str]) -> int:
    """`python -m fer_models [NAME]`."""
    return run_verb(parser, argv, lambda line: sys.stderr.write(line + "\n"))


def _all_nets(*, as_json: bool) -> str:
    rows = [_row(name) for name in NET_NAMES]
    if as_json:
        return json.dumps(rows, indent=2)
    from fer_models.listing import table

    header = ("net", "input", "parameters", "MB", "multiply-adds", "source")
    return table([header, *(_cells(row) for row in rows)], right=(2, 3, 4)) + f"\n{_NOTE}"


def _row(name: str) -> dict[str, Any]:
    """A summary without its layers; if an optional package is missing, what to install."""
    try:
        row = asdict(_summary(name))
    except ModelError as error:
        return {"name": name, "source": NET_CONFIGS[name].source, "missing": str(error)}
    del row["layers"]
    return row


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "missing" in row:
        return row["name"], "", "", "", "", row["missing"]
    costs = f"{row['parameters']:,}", f"{row['megabytes']:.1f}", f"{row['multiply_adds'] / 1e6:,.1f}"
    return row["name"], row["input"], *costs, row["source"]


def _one_net(name: str, *, as_json: bool) -> str:
    if name not in NET_CONFIGS:
        raise ModelError(f"unknown net '{name}'{did_you_mean(name, NET_NAMES)}")
    from fer_models.listing import layer_table

    summary = _summary(name)
    if as_json:
        return json.dumps(asdict(summary), indent=2)
    doc = (NET_CONFIGS[name].__doc__ or "").partition("\n")[0]
    return f"{name}: {doc}\n{layer_table(summary)}\n{_NOTE}"


def _draw(name: str, path: Path) -> None:
    from fer_models.picture import draw_net

    draw_net(_summary(name), path)


def _summary(name: str) -> NetSummary:
    from fer_models.listing import summarise  # imports torch

    return summarise(_CONFIG.validate_python({"name": name}), CLASSES)


if __name__ == "__main__":
    let_no_output_fail()
    sys.exit(main(sys.argv[1:]))
