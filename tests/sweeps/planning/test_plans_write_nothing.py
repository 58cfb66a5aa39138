"""A plan, and the dry run that shows it, write nothing but the cache of faces."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.gpus import GpuFacts
from sweeps.cli.main import run_main
from sweeps.options import Options
from sweeps.planning.hardware import find_hardware
from sweeps.planning.plan import make_plan
from sweeps.planning.resources import Hardware
from tests.sweeps import fake_trials


def state(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of all that is in the folders."""
    found = [path for folder in folders for path in folder.rglob("*")]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_a_plan_writes_the_cache_of_faces_and_nothing_else(tmp_path: Path, tiny_csv: Path, face_cache: Path) -> None:
    asked = Options.parse({"data": str(tiny_csv), "name": "night", "runner": "inline", "out": tmp_path / "runs"})
    before = state(tmp_path)
    plan = make_plan(fake_trials.SPACE, asked, find_hardware)
    assert state(tmp_path) == before
    assert not plan.folder.root.exists()
    before = state(tmp_path, face_cache)
    make_plan(fake_trials.SPACE, asked, find_hardware)
    assert state(tmp_path, face_cache) == before, "with the faces in the cache, a plan writes nothing at all"


def test_a_plan_is_made_for_a_cluster_without_joining_it(tmp_path: Path, tiny_csv: Path) -> None:
    asked = Options.parse({"data": str(tiny_csv), "out": tmp_path / "runs", "address": "10.0.0.1:6379"})
    plan = make_plan(fake_trials.SPACE, asked, lambda _: Hardware((4, 2), (0, 0), GpuFacts()))
    assert plan.slots.node_cpus == (4, 2)
    assert plan.at_once == 6


def test_a_dry_run_leaves_the_file_system_as_it_was(
    tmp_path: Path, space: str, tiny_csv: Path, out: Path, face_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [space, "--data", str(tiny_csv), "--out", str(out), "--runner", "inline", "--name", "night", "--dry-run"]
    words += ["--set", "lr=1e6"]  # a trial would diverge
    assert run_main(words) == 0
    assert not out.exists()
    assert "passes the first rung" in capsys.readouterr().out
    before = state(tmp_path, face_cache)
    assert run_main([*words, "--pruner", "none"]) == 0
    assert state(tmp_path, face_cache) == before
    printed = capsys.readouterr().out
    assert "dry run of" in printed
    assert "passes the first rung" not in printed
