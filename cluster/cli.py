"""The command line of `python -m cluster`. Exit codes: 0 all is well, 1 a check failed, 2 bad input, 130 Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.checks import worst
from cluster.config import check_home, reach
from cluster.doctor import DoctorReport, examine
from cluster.errors import without_password
from fer_common.errors import Parser, run_command


def main(argv: Sequence[str]) -> int:
    """`python -m cluster VERB …`."""

    def act() -> int:
        given = parser().parse_args(argv)
        check_home()
        return _doctor(given)

    return run_command(argv, act, lambda line: sys.stderr.write(without_password(f"{line}\n")))


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m cluster`."""
    top = Parser(prog="python -m cluster", description="Where sweeps run.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    doctor = verbs.add_parser("doctor", help="check a cluster, or this machine, before money is spent on it")
    doctor.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="as cluster/on_prem.yaml")
    doctor.add_argument("--address", metavar="A", help="auto, HOST:6379 or http://HOST:8265 (default: this machine)")
    doctor.add_argument("--storage", type=Path, default=Path("runs"), metavar="DIR",
                        help="folder of all sweeps (default: CONFIG's, else runs)")  # fmt: skip
    doctor.add_argument("--tracking-uri", metavar="URI", help="MLflow (default: CONFIG's, else $MLFLOW_TRACKING_URI)")
    doctor.add_argument("--json", action="store_true", help="one line for programs")
    doctor.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


def _doctor(given: argparse.Namespace) -> int:
    config = reach(given.config, given.address)
    uri = given.tracking_uri or (config.tracking_uri if config else None)
    report = examine(config, given.storage, uri)
    sys.stdout.write((report.as_json() if given.json else _shown(report)) + "\n")
    return 0 if report.healthy else 1


def _shown(report: DoctorReport) -> str:
    lines = [f"doctor: {report.place}"]
    for check in report.checks:
        lines.append(f"{check.status:8} {check.name:14} {check.detail}")
        lines += [f"{'':8} {'':14} fix: {check.fix}"] if check.fix else []
    return "\n".join([*lines, worst(report.checks)])
