"""The arrows between the packages, and who may know which library."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

SIBLINGS = ("fer_data", "fer_models", "tracking", "cluster")
ONLY_IN = {
    "optuna": {
        "sweeps/search/drawn_as.py",
        "sweeps/search/sampling/evolution.py",
        "sweeps/search/lessons.py",
        "sweeps/search/proposals.py",
        "sweeps/search/study.py",
        "sweeps/search/study_storage.py",
        "sweeps/search/asked_trial.py",
        "sweeps/search/samplers.py",
        "sweeps/search/sampling/singly.py",
        "sweeps/after/importances.py",
    },
    "ray.tune": {"sweeps/driver/ray_runner.py"},
    "captum": {"fer_models/inspection/saliency.py"},
    "mlflow": {
        "tracking/mlflow_sync/sink.py",
        "tracking/mlflow_sync/upkeep.py",
        "tracking/mlflow_sync/models.py",
        "tracking/mlflow_sync/weights.py",
        "sweeps/after/pyfunc_model.py",
    },
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports when it runs, `from a import b` as `a` and `a.b`."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", [*SIBLINGS, "fer_common"])
def test_siblings_know_nothing_of_each_other_nor_of_sweeps(package: str) -> None:
    forbidden = {*SIBLINGS, "sweeps"} - {package}  # all may import fer_common, which imports none of them
    wrong = [
        f"{path.name} imports {module}"
        for path in (ROOT / package).rglob("*.py")
        for module in imports(path)
        if module.split(".")[0] in forbidden
    ]
    assert wrong == []


def opens_in_the_encoding_of_the_terminal(call: ast.Call) -> bool:
    keywords = {keyword.arg for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    match call:
        case ast.Call(func=ast.Attribute(attr="read_text" | "write_text")):
            return True
        case ast.Call(func=ast.Attribute(attr="open"), args=[ast.Constant(value=str(mode)), *_]):
            return re.fullmatch("[rwax+]+", mode) is not None
        case ast.Call(func=ast.Name(id="open")):
            return True
    return bool(keywords & {"text", "universal_newlines"})


def test_files_and_pipes_are_utf8_whatever_the_terminal_is() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in (*SIBLINGS, "sweeps")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_in_the_encoding_of_the_terminal(node)
    ]
    assert wrong == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_library_has_one_adapter(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for package in (*SIBLINGS, "sweeps")
        for path in (ROOT / package).rglob("*.py")
        if "spaces" not in path.parts
        if any(module == library or module.startswith(library + ".") for module in imports(path))
    }
    assert users == ONLY_IN[library]


PACKAGES = (*SIBLINGS, "sweeps", "fer_common")


def _graph() -> dict[str, set[str]]:
    """Module -> modules of the project that it imports, imports inside functions included."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    return {name: {module for module in imports(path) if module in files} - {name} for name, path in files.items()}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = _graph()
    left = dict(graph)
    while done := {name for name, below in left.items() if not below & left.keys()}:
        left = {name: below for name, below in left.items() if name not in done}
    # What is left is in a circle or above one: drop what nothing in it imports until only circles remain.
    while above := {name for name in left if not any(name in graph[other] for other in left)}:
        left = {name: below for name, below in left.items() if name not in above}
    assert {name: sorted(below & left.keys()) for name, below in left.items()} == {}


FOLDERS = ("cli", "after", "use", "driver", "sharing", "planning", "search", "node", "trial", "spaces")
"""The folders of sweeps/ in their order: each imports only those after it. docs/architecture.md has the same list."""


def test_folders_of_sweeps_import_only_later_ones() -> None:
    def place(module: str) -> int:
        folder = f"{module}..".split(".")[1]
        return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)

    wrong = [
        f"{name} imports {module}"
        for name, below in _graph().items()
        for module in below
        if name.startswith("sweeps.") and len(FOLDERS) > place(name) > place(module)
    ]
    assert sorted(wrong) == []


def test_no_folder_is_crowded() -> None:
    most = {"sweeps": 16, "sweeps/spaces": 30}
    crowded = {
        str(folder.relative_to(ROOT)): count
        for package in PACKAGES
        for folder in [ROOT / package, *(path for path in (ROOT / package).rglob("*") if path.is_dir())]
        if (count := len([*folder.glob("*.py")]) - 1) > most.get(str(folder.relative_to(ROOT)), 14)  # but __init__.py
    }
    assert crowded == {}


def test_the_tests_mirror_the_packages() -> None:
    tested = {path.parent for package in PACKAGES for path in (ROOT / "tests" / package).rglob("test_*.py")}
    without_package = [folder for folder in tested if not (ROOT / folder.relative_to(ROOT / "tests")).is_dir()]
    assert without_package == []
    assert [folder for folder in tested if not (folder / "__init__.py").is_file()] == []


def test_tests_import_their_helpers_by_their_full_name() -> None:
    """`from tests.sweeps.fake_trials import …`: no folder of tests is on the path."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}; write tests.….{module}"
        for path in (ROOT / "tests").rglob("*.py")
        for module in imports(path)
        if module not in PACKAGES and any((folder / f"{module}.py").is_file() for folder in path.parents)
    ]
    assert wrong == []
