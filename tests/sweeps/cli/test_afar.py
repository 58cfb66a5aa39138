"""A sweep submitted to a cluster: the command line of its job. Submitting itself is in tests/cluster."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pytest

from cluster.config import ClusterConfig
from cluster.submit import REACHED_BY, Job
from fer_common.user import ASKED_MS
from fer_common.verbs import parsed
from sweeps.cli.cluster_verbs import job_arguments
from sweeps.cli.main import RunSweep, main, parser, run_parser
from sweeps.sharing.share import SharedSlots
from tests import ROOT
from tracking.record.events import DriverStopped, now_ms
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)  # acts start processes


def job(*said: str, verb: tuple[str, ...] = (), **config: str) -> list[str]:
    given = parsed(parser() if verb else run_parser(), [*verb, *said])
    assert isinstance(given, RunSweep)
    return job_arguments(given, given.options, ClusterConfig(address="http://head:8265", **config))


def test_the_job_gets_the_command_line_but_for_the_address() -> None:
    said = ["lenet_space", "--name", "lenet_space", "--address", "http://head:8265", "--trials", "3", "--set", "lr=0.1"]
    expected = ["--trials", "3", "--set", "recipe.lr=0.1", "--address", "auto", "--name", "lenet_space"]
    assert job(*said) == ["lenet_space", *expected]
    assert job(*said, verb=("run",)) == ["lenet_space", *expected]
    assert job("lenet_space", "--dry-run", "--resume", "--name=n") == [
        "lenet_space", "--address", "auto", "--name", "n", "--resume", "--dry-run"
    ]  # fmt: skip


def test_the_cluster_file_says_where_only_where_the_command_line_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_DATA", "/here/fer2013.csv")
    places = {"storage": "/mnt/runs", "tracking_uri": "http://m:5000", "data": "/mnt/f.csv"}
    assert job("lenet_space", **places) == [
        "lenet_space", "--data", "/mnt/f.csv", "--address", "auto", "--out", "/mnt/runs",
        "--tracking-uri", "http://m:5000",
    ]  # fmt: skip
    said = ["--data=/mnt/other.csv", "--out=/mnt/mine"]
    assert job("lenet_space", *said, **places)[:7] == [
        "lenet_space", "--data", "/mnt/other.csv", "--address", "auto", "--out", "/mnt/mine"
    ]  # fmt: skip


def test_shipped_files_go_by_their_bare_names() -> None:
    expected = ["my_space.py", "--cluster", "aws.yaml", "--trials", "3", "--address", "auto"]
    assert job("mine/my_space.py", "--cluster=cluster/aws.yaml", "--trials", "3") == expected
    assert job("./mine/my_space.py", "--cluster", "./cluster/aws.yaml", "--trials", "3") == expected


def test_looking_afar_needs_a_place(capsys) -> None:
    assert main(["logs", "night"]) == 2
    assert "no sweep 'night'" in capsys.readouterr().err


class Head:
    """A fake of a cluster's jobs, which runs their commands here, with this interpreter."""

    entrypoint = ""
    asked_ms = 0

    submitted: ClassVar[list[str]] = []

    def __init__(self, config: ClusterConfig, reached_by: Sequence[str]) -> None:
        self._reached_by = shlex.join(reached_by)

    def submit(self, sweep: str, entrypoint: Sequence[str], *, files: Sequence[Path] = ()) -> Job:
        self.submitted.append(shlex.join(entrypoint))
        return self.find(sweep)

    def follow(self, sweep: str, write: Callable[[str], object]) -> Job:
        return Job(sweep, sweep, 1, "SUCCEEDED", "", self.entrypoint, 0)

    def find(self, sweep: str) -> Job:
        return Job(sweep, sweep, 1, "RUNNING", "", self.entrypoint, None)

    def stop(self, sweep: str) -> bool:
        return sweep == "night"

    def run(
        self,
        entrypoint: Sequence[str],
        who: str,
        write: Callable[[str], object],
        after_seconds: float = math.inf,
        do: Callable[[], object] = lambda: None,
    ) -> int:
        if after_seconds == 0:
            do()
        place = os.environ | {
            ASKED_MS: str(self.asked_ms),
            "LOGNAME": who,
            "PYTHONPATH": str(ROOT),
            REACHED_BY: self._reached_by,
        }
        done = subprocess.run([sys.executable, *entrypoint[1:]], env=place, capture_output=True, text=True)
        write(
            f"2026-01-01 INFO job_manager.py:1 -- Runtime env is setting up.\nRunning entrypoint for job x: python\n{done.stdout}{done.stderr}"
        )
        return done.returncode


@pytest.fixture
def main_afar(out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr("sweeps.cli.cluster_verbs.Jobs", Head)
    monkeypatch.setattr(Head, "entrypoint", f"python -m sweeps.run lenet_space --address auto --out {out}")
    monkeypatch.setenv("LOGNAME", "ana")
    return lambda *words: main([*words, "--address", "http://head:8265"])


@pytest.fixture
def afar(run: Callable[..., int], main_afar: Callable[..., int]) -> Callable[..., int]:
    """Commands from afar, with a finished sweep."""
    assert run("--trials", "1") == 0
    return main_afar


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "the folder of sweeps on the cluster is not known: give --out DIR, a folder that all nodes share"),
        (["--out", "runs"], "--out runs: not an absolute path; on a cluster give a folder that all nodes share"),
    ],
)
def test_a_job_without_a_folder_that_later_commands_reach_is_refused(
    main_afar: Callable[..., int], capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    Head.submitted.clear()
    assert main_afar("run", "lenet_space", "--name", "night", *given) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert Head.submitted == []


def test_an_act_is_done_where_the_sweep_is_and_by_whom(
    afar: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert afar("extend", "night", "--trials", "+2", "--epochs", "+1") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("night: 3 trials instead of 1; 4 epochs instead of 3: not trial 0: no state")
    (act,) = SweepHistory.load(out / "night/journal.jsonl").acts
    assert act.who.startswith("ana@")
    assert afar("pause", "night", "7") == 2
    assert "no trial 7" in capsys.readouterr().out


def test_a_whole_sweep_is_stopped_from_afar_by_an_act(
    queued: tuple[SharedSlots, Future[int]],
    main_afar: Callable[..., int],
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    assert main_afar("stop", "night", "--json") == 0
    assert queued[1].result() == 0
    history = SweepHistory.load(out / "night/journal.jsonl")
    (act,) = history.acts
    assert act.model_dump_json() in capsys.readouterr().out.splitlines()
    assert (act.verb, act.answer) == ("stop", "stops now; it can be resumed")
    assert act.who.startswith("ana@")
    assert history.stopped
    assert history.stopped.reason == f"stopped by {act.who}"


@pytest.mark.long
def test_a_stop_from_afar_that_a_signal_has_overtaken_is_recorded(
    afar: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert afar("extend", "night", "--trials", "+1") == 0
    journal = out / "night/journal.jsonl"
    monkeypatch.setattr(Head, "asked_ms", now_ms())
    with journal.open("a") as file:
        file.write(DriverStopped(reason="stopped by SIGTERM").model_dump_json() + "\n")
    capsys.readouterr()
    assert afar("stop", "night") == 0
    assert capsys.readouterr().out == "night: has stopped meanwhile, stopped by SIGTERM; it can be resumed\n"
    act = SweepHistory.load(journal).acts[-1]
    assert (act.verb, act.refused, act.asked_ms) == ("stop", False, Head.asked_ms)
    monkeypatch.setattr(Head, "asked_ms", now_ms())
    monkeypatch.setattr(Head, "stop", lambda *_: False)
    assert afar("stop", "night") == 2


@pytest.mark.long
def test_a_sweep_whose_driver_does_not_answer_is_stopped_from_afar_by_a_signal(
    afar: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_signal = "its driver has not answered, so its job got SIGTERM: it stops within a minute, and can be resumed"
    capsys.readouterr()
    assert afar("stop", "night") == 0, "its job runs, but it has no driver yet"
    assert by_signal in " ".join(capsys.readouterr().out.split())
    driver = ExitStack()
    driver.enter_context(hold_folder(out / "night"))

    def end_driver(_: Head, sweep: str) -> bool:
        driver.close()
        return True

    monkeypatch.setattr("sweeps.cli.cluster_verbs._ANSWER_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(Head, "stop", end_driver)
        assert afar("stop", "night", "--json") == 0
    act = json.loads(capsys.readouterr().out)
    assert (act["verb"], act["answer"]) == ("stop", by_signal)
    assert act["who"].startswith("ana@")
    assert afar("stop", "over") == 2
    assert "over: the sweep does not run, so there is nothing to stop" in capsys.readouterr().err


def test_a_command_that_is_printed_from_afar_works_there(
    afar: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert afar("extend", "night", "--trials", "+1") == 0
    capsys.readouterr()
    assert afar("extend", "night", "--trials", "+1", "--out", str(out)) == 0
    (command,) = re.findall("^  python -m sweeps (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert command == f"resume night --out {out} --address http://head:8265"
    Head.submitted.clear()
    assert main(shlex.split(command)) == 0
    assert Head.submitted == [f"python -m sweeps.run lenet_space --address auto --name night --out {out} --resume"]


def test_the_end_of_a_sweep_on_a_cluster_names_commands_that_reach_it(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REACHED_BY, "--cluster 'my cluster.yaml'")
    run("--trials", "1")
    said = capsys.readouterr().out
    assert "\n  python -m sweeps status night --cluster 'my cluster.yaml'\n" in said
    assert f"\n  python -m sweeps ui night --out {out}   # on the cluster   # the MLflow UI\n" in said


def test_an_address_that_takes_no_jobs_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pause", "night", "--address", "127.0.0.1:6379"]) == 2
    assert "127.0.0.1:6379 takes no jobs: give http://HOST:8265" in " ".join(capsys.readouterr().err.split())


def test_the_reports_of_a_single_trial_are_printed_from_afar(
    afar: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert afar("logs", "night/0") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("trial 0 report: done")
    assert afar("logs", "night", "--json") == 0
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()][-1] == "finished"


def test_a_sweep_is_looked_at_afar(afar: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert afar("status", "night") == 0
    assert "best epoch of each trial" in " ".join(capsys.readouterr().out.split())
    assert afar("list", "--json", "--out", str(out)) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["night"]
    assert afar("list") == 2
    assert "the folder of sweeps on the cluster is not known: give --out DIR" in capsys.readouterr().err
    assert afar("status", "night", "--watch") == 2
