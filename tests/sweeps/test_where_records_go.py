"""A sweep's records stay in one MLflow, whichever verb sends them, and the password of its URI is shown nowhere."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sweeps.after.finish import NothingAtEnd
from sweeps.cli.main import main, run_main
from sweeps.runs import find_run
from sweeps.sweep import run_plan
from tests.sweeps import fake_trials
from tests.sweeps.fake_trials import refused
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.upkeep import find_mlflow_run, opened
from tracking.record.folder_lock import hold_folder
from tracking.record.history import SweepHistory

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]
Run = Callable[..., int]


@pytest.fixture(scope="module")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow's own making: its schema takes seconds, a copy does not."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, space: str, tiny_csv: Path, out: Path) -> Run:
    """`python -m sweeps.run my_space.py --name night …` with bodies that cost nothing and MLflow's real client."""
    monkeypatch.setattr(
        "sweeps.cli.main.run_plan", functools.partial(run_plan, body=fake_trials.good_body, at_end=NothingAtEnd())
    )
    words = [space, "--data", str(tiny_csv), "--out", str(out), "--runner", "inline", "--name", "night"]
    return lambda *more: run_main([*words, *more])


@pytest.fixture
def nobody() -> str:
    """The URI of a server that is down, with a login."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://ann:se%40cret@127.0.0.1:{free.getsockname()[1]}"


def runs_in(store: Path) -> list[str]:
    with closing(sqlite3.connect(store)) as connection:
        return sorted(name for (name,) in connection.execute("SELECT name FROM runs"))


def recorded(out: Path, name: str = "night") -> object:
    return SweepHistory.load(out / name / "journal.jsonl").drivers[-1].spec["tracking_uri"]


def test_later_verbs_send_to_where_the_sweep_has_sent(
    run: Run, out: Path, tmp_path: Path, made_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    team = tmp_path / "team.db"
    team.write_bytes(made_store.read_bytes())
    assert run("--tracking-uri", "sqlite:///team.db", "--trials", "1", "--time-budget", "0.0001s") == 0
    assert recorded(out) == f"sqlite:///{team}"
    assert main(["resume", "night", "--out", str(out)]) == 0
    monkeypatch.chdir(out)
    assert main(["sync", "night", "--out", str(out)]) == 0
    assert f"night: MLflow at sqlite:///{team} has all of it" in capsys.readouterr().out
    assert runs_in(team) == ["night", "report"]
    assert not (out / "mlflow.db").exists()


def test_the_page_of_a_folder_with_an_odd_name_is_opened_by_a_quoted_command(
    run: Run, tmp_path: Path, made_store: Path, capsys: Capture
) -> None:
    out = tmp_path / "a?b"
    out.mkdir()
    (out / "mlflow.db").write_bytes(made_store.read_bytes())
    assert run("--trials", "1", "--out", str(out)) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].partition("#")[0])
    assert words[:5] == ["python", "-m", "sweeps", "ui", "night"]
    assert str(out) in words
    assert runs_in(out / "mlflow.db") == ["night", "report"]


def test_verbs_beside_a_driver_leave_the_sending_to_its_own_sink(
    run: Run, out: Path, made_store: Path, capsys: Capture
) -> None:
    out.mkdir()
    (out / "mlflow.db").write_bytes(made_store.read_bytes())
    assert run("--trials", "1", "--tracking-uri", "http://127.0.0.1:9") == 0
    asked = ("--out", str(out), "--tracking-uri", default_uri(out))
    with hold_folder(out / "night"):
        message = refused(capsys, lambda: main(["sync", "night", *asked]))
        assert f"pid {os.getpid()}" in message
        assert "sends its records to MLflow; sync it afterwards" in message
        (out / "night/trials/0000/best.safetensors").touch()
        assert main(["register", "night/0", *asked]) == 2
        assert "runs the sweep and sends its records to MLflow" in capsys.readouterr().err
    assert runs_in(out / "mlflow.db") == []
    assert main(["sync", "night", *asked]) == 0
    assert runs_in(out / "mlflow.db") == ["night", "report"]


def test_sync_and_register_say_the_same_of_a_run_that_was_deleted(
    run: Run, out: Path, made_store: Path, capsys: Capture
) -> None:
    out.mkdir()
    (out / "mlflow.db").write_bytes(made_store.read_bytes())
    assert run("--trials", "1") == 0
    with opened(default_uri(out)) as client:
        run_id = find_mlflow_run(client, SweepHistory.load(out / "night/journal.jsonl").started, 0)
        client.delete_run(run_id)
    capsys.readouterr()
    assert main(["sync", "night", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "has all of it except what was deleted there (1 runs)" in captured.out
    assert f"mlflow runs restore --run-id {run_id}" in captured.err


def test_a_run_id_of_a_sweep_that_was_made_again_does_not_name_the_new_one(
    run: Run, out: Path, made_store: Path, capsys: Capture
) -> None:
    out.mkdir()
    (out / "mlflow.db").write_bytes(made_store.read_bytes())

    def made() -> tuple[str, str]:
        """The sweep's id, and its trial's run in MLflow."""
        assert run("--trials", "1") == 0
        started = SweepHistory.load(out / "night/journal.jsonl").started
        with opened(default_uri(out)) as client:
            return started.sweep_id, find_mlflow_run(client, started, 0)

    first, old = made()
    assert find_run(old, out).name == "night/0"
    shutil.rmtree(out / "night")
    second, new = made()
    assert find_run(new, out).name == "night/0"
    message = refused(capsys, lambda: main(["compare", old, new, "--out", str(out)]))
    assert f"run {old} belongs to another sweep named 'night' (id {first})" in message
    assert f"the one in {out / 'night'} (id {second})" in message


def test_an_environment_that_came_later_is_told_and_not_obeyed(
    run: Run, out: Path, nobody: str, made_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out.mkdir()
    (out / "mlflow.db").write_bytes(made_store.read_bytes())
    assert run("--trials", "1") == 0
    assert recorded(out) == "default"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    capsys.readouterr()
    assert main(["sync", "night", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert f"MLflow at sqlite:///{out}/mlflow.db has all of it" in captured.out
    assert "not in http://ann:…@127.0.0.1" in captured.err


def test_a_journal_without_a_recorded_place_goes_on_as_before(
    run: Run, out: Path, nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    run("--trials", "1", "--time-budget", "0.0001s")
    journal = out / "night/journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line.get("spec", {}).pop("tracking_uri", None)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert nobody.partition("@")[2] in refused(capsys, lambda: main(["sync", "night", "--out", str(out)]))
    assert main(["resume", "night", "--out", str(out)]) == 0
    assert recorded(out) == nobody.replace("se%40cret", "…")


def test_after_an_outage_nothing_is_split_and_no_password_is_shown(
    run: Run, out: Path, nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    place = nobody.partition("@")[2]
    assert run("--tracking-uri", nobody, "--trials", "1") == 0
    captured = capsys.readouterr()
    assert f"MLflow at http://ann:…@{place} does not accept results" in captured.err
    command = captured.err.partition("send them with: ")[2].strip()
    assert shlex.split(command) == ["python", "-m", "sweeps", "sync", "night", "--out", str(out)]
    message = refused(capsys, lambda: main(shlex.split(command)[3:]))
    assert "its password is not recorded: set MLFLOW_TRACKING_PASSWORD" in message
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "se@cret")
    message = refused(capsys, lambda: main(shlex.split(command)[3:]))
    assert f"MLflow at http://ann:…@{place} does not accept results" in message
    assert not (out / "mlflow.db").exists()
    shown = captured.out + captured.err + message
    kept = [path.read_text() for path in (out / "night").rglob("*") if path.is_file()]
    assert not [text for text in [shown, *kept] if "cret@" in text]


def test_a_resume_without_the_password_is_refused_before_any_trial(
    run: Run, out: Path, nobody: str, capsys: Capture
) -> None:
    assert run("--tracking-uri", nobody, "--trials", "1", "--time-budget", "0.0001s") == 0
    before = (out / "night/journal.jsonl").read_bytes()
    message = refused(capsys, lambda: main(["resume", "night", "--out", str(out)]))
    assert "set MLFLOW_TRACKING_PASSWORD" in message
    assert (out / "night/journal.jsonl").read_bytes() == before


NEVER = ("./mlruns", "nonsense://ann:secret@x", "127.0.0.1:5791", "http://ann:se#cret@h")


@pytest.mark.parametrize(("option", "variable"), [(uri, "") for uri in ("", *NEVER)] + [(None, uri) for uri in NEVER])
def test_a_uri_that_can_never_work_is_refused_before_any_trial(
    run: Run, out: Path, option: str | None, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    message = refused(capsys, lambda: run(*([] if option is None else ["--tracking-uri", option])))
    assert "http://" in message
    assert "secret" not in message
    assert "cret@" not in message
    assert not out.exists()


def test_an_option_that_is_misspelt_does_not_show_the_password(run: Run, nobody: str, capsys: Capture) -> None:
    message = refused(capsys, lambda: run("--traking-uri", nobody))
    assert "ann:…@127.0.0.1" in message


def test_a_sweep_for_a_cluster_gets_no_password_on_its_command_line(
    space: str, nobody: str, out: Path, capsys: Capture
) -> None:
    words = [space, "--address", "http://127.0.0.1:9", "--tracking-uri", nobody, "--data", "synthetic"]
    message = refused(capsys, lambda: run_main(words))
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the nodes" in message
    assert "cret@" not in message
