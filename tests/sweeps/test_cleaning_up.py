"""`python -m sweeps gc`: says first, removes when told, and leaves alone what somebody may still want."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_trials import refused

from sweeps.after.cleanup import ensemble_members
from sweeps.cli.main import main
from sweeps.sweep import SweepResult
from tracking.record.folder_lock import hold_folder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def gc(sweep: Callable[..., SweepResult], out: Path) -> Callable[..., int]:
    """The verb, on a finished sweep `night` of four trials and another, `day`, with a checkpoint each of a MiB."""
    for name in ("night", "day"):
        for trial in sweep(name=name, trials=4, figures=False):
            folder = out / name / f"trials/{trial.number:04d}"
            for kept in ("best", "last"):
                (folder / f"{kept}.safetensors").write_bytes(bytes(2**20))
    return lambda *words: main(["gc", *words, "--out", str(out)])


def nets(out: Path, kind: str, name: str = "night") -> list[int]:
    return sorted(int(path.parent.name) for path in out.glob(f"{name}/trials/*/{kind}.safetensors"))


def test_it_says_first_and_removes_when_told(gc: Callable[..., int], out: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert gc("night", "--keep", "1") == 0
    said = capsys.readouterr()
    assert "night: trials/0000/last.safetensors (1.0 MiB): trial 0 is done: nothing goes on from it" in said.out
    assert "of 4 by val_accuracy; 1 are kept" in said.out
    assert "to be removed and closed: 7 files, 7.0 MiB; 0 runs of dead drivers" in said.out
    assert f"python -m sweeps gc night --keep 1 --out {out} --yes" in said.out
    assert "there is no MLflow store" in said.err
    assert nets(out, "last") == nets(out, "best") == [0, 1, 2, 3]
    assert gc("night", "--keep", "1", "--yes") == 0
    assert "removed and closed: 7 files, 7.0 MiB" in capsys.readouterr().out
    assert (nets(out, "last"), len(nets(out, "best"))) == ([], 1)
    assert nets(out, "last", "day") == [0, 1, 2, 3]
    assert gc() == 0
    assert "to be removed and closed: 4 files, 4.0 MiB" in capsys.readouterr().out
    assert gc("--yes") == 0
    assert nets(out, "last", "day") == []
    assert gc() == 0
    assert "to be removed and closed: 0 files, 0.0 MiB" in capsys.readouterr().out


def test_a_living_sweep_is_left_alone(gc: Callable[..., int], out: Path, capsys: Capture) -> None:
    with hold_folder(out / "night"):
        assert gc("--yes") == 0
    assert "night: is being worked on (host" in capsys.readouterr().out
    assert (nets(out, "last"), nets(out, "last", "day")) == ([0, 1, 2, 3], [])


def test_members_of_ensembles_stay(gc: Callable[..., int], out: Path) -> None:
    lines = (out / "night/journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    (out / "both").mkdir(mode=0o700)
    first = next(event for event in events if event["event"] == "trial")
    first["config"] = {"ensemble": {"method": "mean", "members": {"night/0": 0.5, "night/2": 0.5}}, "net": {}}
    (out / "both/journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in (events[0], first)))
    assert ensemble_members(out) == {"night": {0, 2}}
    assert gc("--keep", "1", "--yes") == 0
    assert {0, 2} <= set(nets(out, "best"))
    assert len(nets(out, "best")) < 4


def test_what_is_asked_wrongly_is_said(gc: Callable[..., int], capsys: Capture) -> None:
    assert "did you mean 'night'" in refused(capsys, lambda: gc("nigth"))
    capsys.readouterr()
    assert gc("--keep", "0") == 2
    assert "keep 0: expected 1 at least" in capsys.readouterr().err
