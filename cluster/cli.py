"""The command line of `python -m cluster`. Exit codes: 0 no check failed, 1 a check failed, 2 bad input, 130 Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cluster.checks import worst
from cluster.config import check_home, reach
from cluster.doctor import DoctorReport, examine
from fer_common.errors import Parser, without_password
from fer_common.flags import Flag
from fer_common.verbs import Verb, add_verbs, run_verb


class Doctor(Verb):
    """Check a cluster, or this machine, before a sweep.

    Example: python -m cluster doctor cluster/on_prem.yaml
    """

    config: Annotated[
        Path | None, Flag("a cluster file, as cluster/on_prem.yaml (default: none)", "CONFIG", positional=True)
    ] = None
    address: Annotated[str | None, Flag("auto, HOST:6379 or http://HOST:8265 (default: this machine)", "A")] = None
    storage: Annotated[Path, Flag("folder of all sweeps (default: CONFIG's, else runs)", "DIR")] = Path("runs")
    tracking_uri: Annotated[str | None, Flag("MLflow (default: CONFIG's, else $MLFLOW_TRACKING_URI)", "URI")] = None
    as_json: Annotated[bool, Flag("print one line of JSON", name="json")] = False

    def __call__(self) -> int:
        check_home()
        config = reach(self.config, self.address)
        uri = self.tracking_uri or (config.tracking_uri if config else None)
        report = examine(config, self.storage, uri)
        sys.stdout.write((report.as_json() if self.as_json else _shown(report)) + "\n")
        return 0 if report.healthy else 1


def parser() -> Parser:
    """The command line of `python -m cluster`."""
    top = Parser(prog="python -m cluster", description="Check where sweeps run.")
    add_verbs(top, {"doctor": Doctor})
    return top


def main(argv: Sequence[str]) -> int:
    """`python -m cluster VERB …`."""
    return run_verb(parser, argv, lambda line: sys.stderr.write(without_password(f"{line}\n")))


def _shown(report: DoctorReport) -> str:
    lines = [f"doctor: {report.place}"]
    for check in report.checks:
        lines.append(f"{check.status:8} {check.name:14} {check.detail}")
        lines += [f"{'':8} {'':14} fix: {check.fix}"] if check.fix else []
    return "\n".join([*lines, worst(report.checks)])
