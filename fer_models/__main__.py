"""`python -m fer_models [NAME] [--json]`: the nets and what they cost, or one net layer by layer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from fer_models.errors import ModelError
from fer_models.net_config import NET_CONFIGS, NET_NAMES, NetConfig

if TYPE_CHECKING:
    from fer_models.listing import Summary

BAD_INPUT = 2
CLASSES = 7
_NOTE = f"{CLASSES} classes, default options; MB of fp32 parameters; multiply-adds of one face, in millions"
_CONFIG: TypeAdapter[NetConfig] = TypeAdapter(NetConfig)


def main(argv: Sequence[str]) -> int:
    """Print what was asked for; 2 after one line on stderr where that is not possible."""
    parser = argparse.ArgumentParser(prog="python -m fer_models", description=f"The nets. {_NOTE}.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of: " + ", ".join(NET_NAMES))
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args(argv)
    try:
        text = _all_nets(as_json=given.json) if given.name is None else _one_net(given.name, as_json=given.json)
    except ModelError as error:
        if given.debug:
            raise
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT
    sys.stdout.write(text + "\n")
    return 0


def _all_nets(*, as_json: bool) -> str:
    rows = [_row(name) for name in NET_NAMES]
    if as_json:
        return json.dumps(rows, indent=2)
    header = ("net", "input", "parameters", "MB", "multiply-adds", "source")
    return _table([header, *(_cells(row) for row in rows)], right=(2, 3, 4)) + f"\n{_NOTE}"


def _row(name: str) -> dict[str, Any]:
    """A summary without its layers; where an optional package is missing, what to install."""
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
        near = get_close_matches(name.lower(), NET_NAMES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "expected one of " + ", ".join(NET_NAMES)
        raise ModelError(f"unknown net '{name}', {hint}")
    summary = _summary(name)
    if as_json:
        return json.dumps(asdict(summary), indent=2)
    doc = (NET_CONFIGS[name].__doc__ or "").partition("\n")[0]
    rows = [("layer", "kind", "output", "parameters", "multiply-adds")]
    for layer in summary.layers:
        shape = "x".join(map(str, layer.output))
        rows.append((layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.multiply_adds / 1e6:,.3f}"))
    own = sum(layer.parameters for layer in summary.layers)
    total = (
        "total" if own == summary.parameters else "total with auxiliary heads",
        "",
        "",
        f"{summary.parameters:,}",
        f"{summary.multiply_adds / 1e6:,.3f}",
    )
    return f"{name}: {doc}\n{_table([*rows, total], right=(3, 4))}\n{_NOTE}"


def _summary(name: str) -> Summary:
    from fer_models.listing import summarise  # imports torch

    return summarise(_CONFIG.validate_python({"name": name}), CLASSES)


def _table(rows: Sequence[Sequence[str]], right: Iterable[int]) -> str:
    """Columns padded to their widest cell, those of `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
