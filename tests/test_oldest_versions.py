"""The oldest versions of libraries are read from pyproject.toml."""

import importlib.metadata
import tomllib

from packaging.requirements import Requirement

from tests import ROOT
from tests.oldest_versions import oldest


def test_each_library_that_a_user_needs_has_an_oldest_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    constrained = {line.split("==")[0] for line in oldest()}
    assert {Requirement(line).name for line in project["dependencies"]} - constrained == set()


def test_this_environment_is_not_older() -> None:
    for line in oldest():
        name, version = line.removesuffix(".*").split("==")
        assert Requirement(f"{name}>={version}").specifier.contains(importlib.metadata.version(name)), line
