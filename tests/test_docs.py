"""The documentation site is built without network and without warnings."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli import parser as cluster_parser
from fer_data.cli import parser as data_parser
from fer_models.__main__ import parser as models_parser
from sweeps.cli.main import parser
from tests import ROOT
from tracking.mlflow_sync.serve import parser as tracking_parser

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 8
    loaded = r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//|<link[^>]+stylesheet[^>]+href="(?:https?:)?//'
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []


def test_the_command_reference_has_every_verb(site: Path) -> None:
    verbs = parser()._subparsers._group_actions[0].choices
    headings = re.findall(r'<h2 id="([^"]+)"', (site / "commands.html").read_text())
    assert {f"python-m-sweeps-{verb}" for verb in verbs} <= set(headings)


def test_the_reference_has_what_the_packages_export(site: Path) -> None:
    import sweeps

    page = (site / "api/sweeps.html").read_text()
    assert [name for name in sweeps.__all__ if f"sweeps.{name}" not in page and f">{name}<" not in page] == []


PARSERS = {
    "sweeps": parser,
    "fer_data": data_parser,
    "fer_models": models_parser,
    "tracking": tracking_parser,
    "cluster": cluster_parser,
}
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_the_commands_on_the_pages_are_parsed(page: Path) -> None:
    lines = re.findall(rf"(?:^    |`)(python -m (?:{'|'.join(PARSERS)}) [^`\n]+)", page.read_text(), flags=re.MULTILINE)
    commands = {re.split("[#>]", line)[0].strip() for line in lines if not re.search(r"[|…A-Z]{4,}VERB|…| \| ", line)}
    for command in commands:
        package, *words = shlex.split(command)[2:]
        if len(words) > 1:
            PARSERS[package]().parse_args(words)


def test_the_readme_has_a_row_for_every_verb() -> None:
    rows = set(re.findall(r"^\| `python -m sweeps[ .]([a-z]+)`", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert rows == set(parser()._subparsers._group_actions[0].choices)
