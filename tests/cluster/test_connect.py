"""Leaving a Ray that was started here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

_GARBAGE_DURING_SHUTDOWN = """
import gc, sys, threading
from cluster.connect import local_ray, prepare_environment
prepare_environment()
import ray

class Cycle:
    def __init__(self, reference):
        self.me, self.reference = self, reference

def drop():
    while references:
        Cycle(references.pop())
        sum(range(10_000))  # holds the interpreter, so that the main thread has to wait for it

with local_ray(1, 0):
    references = [ray.put(None) for _ in range(5_000)]
    gc.set_threshold(2)
    threading.Thread(target=drop, daemon=True).start()
assert gc.isenabled()
sys.exit(42)
"""


def test_a_reference_collected_while_ray_shuts_down_does_not_end_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _GARBAGE_DURING_SHUTDOWN], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 42, done.stderr
