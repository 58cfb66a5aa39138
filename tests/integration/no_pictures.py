"""`python -m sweeps.run` without pictures, which are most of what a small sweep takes and no matter of these tests."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any
from unittest import mock

from fer_common.console import let_no_output_fail
from sweeps.cli.main import run_main
from sweeps.planning.plan import Plan
from sweeps.sweep import SweepResult, run_plan


def _run_plan(plan: Plan, **more: Any) -> SweepResult:
    return run_plan(replace(plan, spec=plan.spec.model_copy(update={"figures": False})), **more)


if __name__ == "__main__":
    let_no_output_fail()
    with mock.patch("sweeps.cli.main.run_plan", _run_plan):
        sys.exit(run_main(sys.argv[1:]))
