"""Hyperparameter sweeps of facial-expression nets: `run_sweep(space, data=…, trials=…)` returns the trials."""

# ruff: noqa: E402
from sweeps.local_files import refuse_hidden_packages

refuse_hidden_packages()

from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.space import Baseline, Prior, Space
from sweeps.sweep import SweepResult, run_sweep

__all__ = ["Baseline", "InputError", "Prior", "Space", "SweepResult", "TrialConfig", "run_sweep"]
