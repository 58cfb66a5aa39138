"""`python -m sweeps gc`: says first, removes when told, and leaves alone what somebody may still want."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.main import main
from sweeps.sweep import SweepResult
from tests.sweeps.fake_trials import only_sampled, refused
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def gc(sweep: Callable[..., SweepResult], out: Path) -> Callable[..., int]:
    """The verb, on a finished sweep `night` of four trials and another, `day`, with a checkpoint each of a MiB."""
    for name in ("night", "day"):
        for trial in sweep(name=name, trials=4, figures=False, space=only_sampled()):
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
    assert "night: trials/0000/last.safetensors (1.0 MiB): trial 0 is done: nothing continues from it" in said.out
    assert "is not among the best 1 by val_accuracy, nor a baseline" in said.out
    assert "to be removed or closed: 7 files (7.0 MiB) and 0 runs of dead drivers" in said.out
    assert f"python -m sweeps gc night --keep 1 --out {out} --yes" in said.out
    assert "MLflow's store" in said.err
    assert nets(out, "last") == nets(out, "best") == [0, 1, 2, 3]
    assert gc("night", "--keep", "1", "--yes") == 0
    assert "removed or closed: 7 files (7.0 MiB)" in capsys.readouterr().out
    assert (nets(out, "last"), len(nets(out, "best"))) == ([], 1)
    assert nets(out, "last", "day") == [0, 1, 2, 3]
    assert gc() == 0
    assert "to be removed or closed: 4 files (4.0 MiB)" in capsys.readouterr().out
    assert gc("--yes") == 0
    assert nets(out, "last", "day") == []
    assert gc() == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_living_sweep_is_left_alone(gc: Callable[..., int], out: Path, capsys: Capture) -> None:
    with hold_folder(out / "night"):
        assert gc("--yes") == 0
    assert "night: has a driver (host" in capsys.readouterr().out
    assert (nets(out, "last"), nets(out, "last", "day")) == ([0, 1, 2, 3], [])


def make_sweep(out: Path, name: str, *, spec: dict[str, Any], config: dict[str, Any]) -> None:
    """A sweep of one trial that has not finished, started as `night` was."""
    lines = [json.loads(line) for line in (out / "night/journal.jsonl").read_text().splitlines()]
    (out / name).mkdir(mode=0o700)
    first = next(event for event in lines if event["event"] == "trial")
    events = (lines[0] | {"name": name, "spec": lines[0]["spec"] | spec}, first | {"config": config})
    (out / name / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_what_other_runs_need_stays_and_is_said(gc: Callable[..., int], out: Path, capsys: Capture) -> None:
    config = SweepHistory.load(out / "night/journal.jsonl").trials[0].started.config
    ranked = SweepHistory.load(out / "night/journal.jsonl").trials.values()
    *outdone, _ = sorted(ranked, key=lambda trial: trial.best_epoch().metrics["val_accuracy"])  # type: ignore[union-attr]
    first, second, third = (trial.number for trial in outdone)
    members = {f"night/{first}": 0.5, f"day/{first}": 0.5}
    make_sweep(out, "both", spec={}, config={"ensemble": {"method": "mean", "members": members}, "net": {}})
    weights = str(out.absolute() / f"night/trials/{second:04d}/best.safetensors")
    make_sweep(out, "later", spec={}, config=config | {"transfer": {"weights": weights}})
    make_sweep(out, "planned", spec={"settings": {"transfer.weights": f"run:night/{third}"}}, config=config)
    capsys.readouterr()
    assert gc("night", "--keep", "1") == 0
    shown = capsys.readouterr().out
    assert f"night: trials/{first:04d}/best.safetensors stays: ensemble both uses it" in shown
    why = "needs it and is not finished"
    assert f"night: trials/{second:04d}/best.safetensors stays: sweep later {why}" in shown
    assert f"night: trials/{third:04d}/best.safetensors stays: sweep planned {why}" in shown
    assert gc("--keep", "1", "--yes") == 0
    assert nets(out, "best") == [0, 1, 2, 3]
    assert len(nets(out, "best", "day")) == 2
    for name in ("later", "planned"):
        with (out / name / "journal.jsonl").open("a") as journal:
            journal.write('{"time_ms":1,"event":"finished","done":1}\n')
    assert gc("--keep", "1", "--yes") == 0
    assert len(nets(out, "best")) == 2


def test_baselines_keep_their_weights(sweep: Callable[..., SweepResult], out: Path) -> None:
    for trial in sweep(trials=6, figures=False):
        (out / f"night/trials/{trial.number:04d}/best.safetensors").write_bytes(b"x")
    assert main(["gc", "--keep", "1", "--yes", "--out", str(out)]) == 0
    assert {0, 1} <= set(nets(out, "best"))
    assert len(nets(out, "best")) in (2, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "the journal is empty: the sweep never started"), ("{}\n{}\n", "not an event this version knows")],
)
def test_a_journal_that_cannot_be_read_stops_nothing(
    content: str, reason: str, gc: Callable[..., int], out: Path, capsys: Capture
) -> None:
    (out / "broken").mkdir()
    (out / "broken/journal.jsonl").write_text(content)
    capsys.readouterr()
    assert gc("--keep", "1", "--yes") == 0
    shown = capsys.readouterr().out
    assert reason in shown
    assert "skipped" in shown
    assert (nets(out, "last"), nets(out, "last", "day")) == ([], [])


def test_what_is_asked_wrongly_is_said(gc: Callable[..., int], capsys: Capture) -> None:
    assert "did you mean 'night'" in refused(capsys, lambda: gc("nigth"))
    capsys.readouterr()
    assert gc("--keep", "0") == 2
    assert "keep 0: expected 1 at least" in capsys.readouterr().err
