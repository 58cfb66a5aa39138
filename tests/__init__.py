"""The tests mirror the packages: `tests/sweeps/driver/` tests `sweeps/driver/`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
