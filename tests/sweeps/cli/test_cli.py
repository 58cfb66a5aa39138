import functools
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps import SweepResult
from sweeps.cli.main import main, run_main
from sweeps.driver.runner import InlineRunner
from sweeps.spaces import SPACES
from sweeps.sweep import run_plan
from sweeps.trial.messages import Message, Task, TrialEnd
from tests.stand_ins import QUIET, Card, FakeNvml
from tests.sweeps.fake_trials import good_body, refused
from tracking.record.history import SweepHistory

Capture = pytest.CaptureFixture[str]


def history(out: Path, name: str = "night") -> SweepHistory:
    return SweepHistory.load(out / name / "journal.jsonl")


def test_a_whole_sweep(run: Callable[..., int], out: Path, capsys: Capture) -> None:
    assert run() == 0
    captured = capsys.readouterr()
    assert "sweep night: 4 trials of my_space on tiny (train 56, val 14; fingerprint" in captured.out
    assert "1 at once on cpu" in captured.out
    assert "trial 0 report: started" in captured.out
    assert re.search(r"4 of 4 trials: \d done, \d pruned, 0 failed, 0 stopped", captured.out)
    assert "SYNTHETIC" not in captured.out
    assert captured.err == ""
    assert (out / "night").stat().st_mode & 0o777 == 0o700
    assert history(out).finished is not None


def test_synthetic_faces_are_said_to_be(run: Callable[..., int], capsys: Capture) -> None:
    assert run("--data", "synthetic", "--limit-train", "70", "--trials", "1", "--epochs", "1") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("SYNTHETIC FACES")
    assert "on synthetic faces (train 70, val 840;" in shown
    assert "note: trained on 70 of 4,200 train images" in shown


def test_faces_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tiny_csv: Path, out: Path, capsys: Capture
) -> None:
    monkeypatch.setenv("FER_DATA", str(tiny_csv))
    assert "train split of 56 images" in refused(capsys, lambda: run_main(["lenet_space", "--out", str(out)]))
    message = refused(capsys, lambda: run_main(["lenet_space", "--data", "nowhere.csv", "--out", str(out)]))
    assert "nowhere.csv" in message, "a wrong path is an error, never a fallback"


def test_the_time_left_is_of_one_trial_at_once_where_they_run_inline(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("sweeps.planning.hardware.usable_cpus", lambda: 4)
    assert run("--trials", "3") == 0
    first = next(line for line in capsys.readouterr().out.splitlines() if "epoch 1/" in line)
    # Of the baseline's 3 epochs 2 are left, of two other trials half of 3 each: 5, one at a time, 2 s each.
    assert first.endswith("about 10 s left")


def test_a_stopped_sweep_says_how_to_go_on_and_that_does(
    run: Callable[..., int], out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run("--time-budget", "0.0001s") == 0
    shown = capsys.readouterr().out
    assert "not finished (the time budget of" in shown
    command = next(line for line in shown.splitlines() if "sweeps resume" in line)
    assert shlex.split(command) == ["python", "-m", "sweeps", "resume", "night", "--out", str(out)]
    inline = functools.partial(run_plan, body=good_body, runner=InlineRunner(), **QUIET)
    monkeypatch.setattr("sweeps.cli.main.run_plan", inline)
    assert main(shlex.split(command)[3:]) == 0
    assert history(out).finished is not None
    assert len(history(out).trials) == 4


def test_resume_of_a_finished_sweep_says_that_it_is(run: Callable[..., int], capsys: Capture) -> None:
    run("--trials", "1")
    capsys.readouterr()
    assert run("--trials", "1", "--resume") == 0
    assert "finished" in capsys.readouterr().out


def test_resume_of_an_extended_sweep_goes_on_to_the_new_number_of_trials(
    run: Callable[..., int], out: Path, capsys: Capture
) -> None:
    run("--trials", "1")
    run("--trials", "2", "--resume", "--time-budget", "0.0001s")
    capsys.readouterr()
    assert main(["status", "night", "--out", str(out)]) == 0
    assert re.search(r"stopped.*; \d of 2 trials", capsys.readouterr().out)


def test_resume_keeps_the_device_of_the_sweep(
    run: Callable[..., int], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep started with --device cpu continues with it where there is a GPU."""
    run("--device", "cpu", "--time-budget", "0.0001s")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Card("GPU-a")))
    plans: list[Any] = []

    def keep(plan: Any) -> int:
        plans.append(plan)
        return 0

    monkeypatch.setattr("sweeps.cli.main._run_plan", keep)
    assert main(["resume", "night", "--out", str(out)]) == 0
    assert plans[0].spec.device == "cpu"


def test_printed_commands_can_be_pasted(run: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    where = tmp_path / "my runs [old]"
    assert run("--out", str(where), "--time-budget", "0.0001s") == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if "sweeps resume" in line)
    assert shlex.split(command)[-1] == str(where)


def test_status(run: Callable[..., int], out: Path, capsys: Capture) -> None:
    run()
    capsys.readouterr()
    assert main(["status", "night", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "sweep night: finished; 4 of 4 trials on tiny" in shown
    assert "reported: report: 50 %" in shown


def test_status_says_why_trials_failed(sweep: Callable[..., SweepResult], out: Path, capsys: Capture) -> None:
    def body(task: Task) -> Iterator[Message]:
        yield TrialEnd(attempt=task.attempt, state="failed", diverged=True, reason=f"nan in trial {task.trial}")

    sweep(trials=7, body=body)
    assert main(["status", "night", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("failed: ")] == [
        *(f"failed: trial {number}: nan in trial {number}" for number in range(5)),
        "failed: and 2 more trials; their reasons are in the journal",
    ]


def test_status_of_a_sweep_started_from_python(sweep: Callable[..., SweepResult], out: Path, capsys: Capture) -> None:
    sweep(trials=1, epochs=1)
    assert main(["status", "night", "--out", str(out)]) == 0, capsys.readouterr().err
    assert "1 of 1 trials" in capsys.readouterr().out


def test_spaces(capsys: Capture) -> None:
    assert main(["spaces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SPACES)
    assert "LeNet on 48-pixel faces" in lines[0]
    assert "20 trials, at most 15 epochs each" in lines[0]
