"""No test shares slots with what else runs on this machine."""

import os
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def slots_of_their_own() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="fer-slots-") as folder:
        before = os.environ.get("FER_SLOTS")
        os.environ["FER_SLOTS"] = folder
        yield
        if before is None:
            del os.environ["FER_SLOTS"]
        else:
            os.environ["FER_SLOTS"] = before
