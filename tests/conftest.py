"""Every process that runs tests has its own home folder, slots and cache of faces, and one thread for arithmetic.

Two processes run the whole suite (`make test`). Neither sees the other's claims, Ray tokens or settings, nor the user's.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from typing import Any

import matplotlib
import pytest

from tests import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, which is after this
SLOW_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests may take longer than the default limit."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> None:
    """A job in the background ignores SIGINT, and one under nohup SIGHUP; so would all processes that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def own_home_slots_and_faces() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="fer-tests-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # its list of fonts takes seconds to make
        patch.setenv("HOME", folder)
        patch.setenv("FER_SLOTS", f"{folder}/slots")
        patch.setenv("FER_CACHE", f"{folder}/faces")
        yield


@pytest.fixture(scope="module")
def ray_of_the_caller() -> Iterator[None]:
    """One start of Ray for all tests of a module: a sweep uses the one that it finds."""
    from cluster.connect import local_ray, prepare_environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # where workers find the trials' body
        prepare_environment()
        with local_ray(cpus=2, gpus=0):
            yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; its pages speak Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium, as apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
