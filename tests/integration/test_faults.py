"""What kills sweeps in practice, done to real ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests import ROOT
from tests.integration.conftest import Start, check_mlflow, finish, lines, started, states, what_happened
from tracking.record.events import TrialEnded
from tracking.record.history import SweepHistory
from tracking.record.journal import read

# Whole sweeps in processes, some of them with Ray.
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 180) -> None:
    """Until it holds or the process ends."""
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(0.02)


def wait_for_lines(journal: Path, count: int, process: subprocess.Popen[str]) -> None:
    wait_for(lambda: lines(journal) >= count, process)


def wait_for_worker(driver: subprocess.Popen[str], seconds: float = 180) -> psutil.Process:
    """The worker in the middle of an epoch, by the title that Ray gives it there: between trials it dies unnoticed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for child in psutil.Process(driver.pid).children(recursive=True):
            try:
                if any("ResourceTrainable.train" in part for part in child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.01)
    raise AssertionError("no worker")


@pytest.fixture(scope="module")
def four_epochs(small: list[str]) -> list[str]:
    return [*small, "--epochs", "4"]


@pytest.fixture(scope="module")
def calm(four_epochs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of that sweep, inline and undisturbed."""
    out = tmp_path_factory.mktemp("calm")
    with started(out) as start:
        code, output = finish(start(*four_epochs, "--runner", "inline", "--name", "calm"))
    assert code == 0, output
    return out / "calm/journal.jsonl"


def test_driver_killed_at_random_moments_goes_on_as_if_undisturbed(
    start: Start, four_epochs: list[str], calm: Path, tmp_path: Path
) -> None:
    inline, journal = [*four_epochs, "--runner", "inline"], tmp_path / "killed/journal.jsonl"
    whole, moments = lines(calm), random.Random(3)
    code = -signal.SIGKILL
    for share in (0.25, 0.5, 0.75):
        process = start(*inline, "--name", "killed", "--resume")
        wait_for_lines(journal, max(int(share * whole), lines(journal) + 1), process)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate()
    code, output = finish(start(*inline, "--name", "killed", "--resume"))

    assert code == 0, output
    assert what_happened(journal) == what_happened(calm)
    check_mlflow(f"sqlite:///{tmp_path}/mlflow.db", journal, "small_space")


@pytest.mark.slow
def test_a_driver_killed_with_a_paused_trial_leaves_it_paused_until_it_is_unpaused(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    inline = [*small, "--runner", "inline", "--epochs", "40"]
    calm, journal = tmp_path / "calm/journal.jsonl", tmp_path / "killed/journal.jsonl"
    process = start(*inline, "--name", "killed")
    wait_for_lines(journal, 4, process)  # its first epoch
    assert finish(start("pause", "killed", "0", module="sweeps"))[0] == 0
    wait_for_lines(journal, lines(journal) + 3, process)
    process.kill()
    process.communicate()
    code, output = finish(start("resume", "killed", module="sweeps"))
    assert (code, SweepHistory.load(journal).trials[0].state) == (0, "paused"), output
    assert finish(start("unpause", "killed", "0", module="sweeps"))[0] == 0
    code, output = finish(start("resume", "killed", module="sweeps"))
    assert code == 0, output
    code, output = finish(start(*inline, "--name", "calm"))
    assert code == 0, output
    of_trial = [[one for one in what_happened(path) if one["event"] == "epoch" and one["trial"] == 0]
                for path in (calm, journal)]  # fmt: skip
    assert of_trial[0] == of_trial[1]
    assert SweepHistory.load(journal).finished
    check_mlflow(f"sqlite:///{tmp_path}/mlflow.db", journal, "small_space")


def test_ray_gives_the_inline_numbers_through_deaths_of_worker_and_driver(
    start: Start, four_epochs: list[str], calm: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "ray/journal.jsonl"

    process = start(*four_epochs, "--name", "ray")
    wait_for_lines(journal, 10, process)  # trial 1 has reported its first epoch of four
    wait_for_worker(process).kill()
    wait_for(lambda: "its worker died" in journal.read_text(), process)
    process.kill()
    process.communicate()
    code, output = finish(start(*four_epochs, "--name", "ray", "--resume"))

    assert code == 0, output
    assert what_happened(journal) == what_happened(calm)


@pytest.mark.slow
def test_a_trial_of_two_workers_outlives_one_and_none_outlives_its_driver(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    two = [*small, "--trials", "1", "--epochs", "40", "--workers-per-trial", "2", "--cpus-per-trial", "2"]
    journal = tmp_path / "two/journal.jsonl"
    process = start(*two, "--name", "two")
    wait_for_lines(journal, 4, process)  # the first epoch
    first = workers_of(process)
    assert len(first) == 2
    first[1].kill()
    wait_for(lambda: "worker 2 of 2 was ended by signal 9" in journal.read_text(), process)
    wait_for_lines(journal, lines(journal) + 2, process)  # it continues
    second = workers_of(process)
    process.kill()
    process.communicate()
    assert psutil.wait_procs([*first, *second], timeout=30)[1] == []

    code, output = finish(start(*small, "--name", "two", "--resume", "--workers-per-trial", "1", "--trials", "1"))
    assert code == 0, output
    (trial,) = SweepHistory.load(journal).trials.values()
    assert [epoch.epoch for epoch in trial.epochs] == list(range(1, 41))


def workers_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train a trial together."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "sweeps.trial.worker" in process.cmdline():
                found.append(process)
    return found


def test_each_signal_stops_a_sweep_whole_and_prints_how_to_continue(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    journal, uri = tmp_path / "stopped/journal.jsonl", f"sqlite:///{tmp_path}/mlflow.db"
    sweep = [*small, "--trials", "2", "--epochs", "8", "--pruner", "none", "--name", "stopped"]

    def stop(process: subprocess.Popen[str], number: signal.Signals, code: int) -> None:
        wait_for_lines(journal, lines(journal) + 5, process)  # two epochs after its start
        process.send_signal(number)
        returned, output = finish(process)
        assert returned == code, output
        assert f"python -m sweeps resume stopped --out {tmp_path}" in output
        assert '"state":"stopped"' in journal.read_text()

    stop(start(*sweep, module="sweeps.run"), signal.SIGINT, 130)
    stop(start("resume", "stopped", "--tracking-uri", uri, module="sweeps"), signal.SIGTERM, 143)
    returned, output = finish(start(*sweep, "--resume"))

    assert returned == 0, output
    assert states(journal) == {"done": 2}
    runs = check_mlflow(uri, journal, "small_space")
    assert [run.data.tags["state"] for run in runs] == ["done", "done"]


def test_a_signal_stops_a_sweep_whose_output_is_closed(start: Start, small: list[str], tmp_path: Path) -> None:
    sweep = [*small, "--trials", "1", "--epochs", "40", "--runner", "inline", "--name", "closed"]
    process = start(*sweep, closing=">&- 2>&-")
    journal = tmp_path / "closed/journal.jsonl"
    wait_for_lines(journal, 4, process)  # its first epoch
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    ends = [event for event in read(journal) if isinstance(event, TrialEnded)]
    assert [(end.state, end.final) for end in ends] == [("stopped", False)]


def test_divergence_is_a_result_and_ends_only_its_trial(start: Start, small: list[str], tmp_path: Path) -> None:
    space = tmp_path / "wild_space.py"
    space.write_text(
        "from fer_models import LeNetConfig, Recipe\n"
        "from sweeps import Space, TrialConfig\n"
        "def suggest(trial):\n"
        "    lr = trial.suggest_categorical('lr', [0.01]) if trial.number else 1e30\n"
        "    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=50))\n"
        "SPACE = Space(suggest=suggest, max_epochs=2, trials=2)\n"
    )
    code, output = finish(start(str(space), *small[1:], "--name", "wild", "--runner", "inline", module="sweeps.run"))

    assert code == 0, output
    assert states(tmp_path / "wild/journal.jsonl") == {"failed": 1, "done": 1}
    assert "diverged: train_loss is nan" in output
    runs = check_mlflow(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "wild/journal.jsonl", "wild_space")
    assert [run.info.status for run in runs] == ["FAILED", "FINISHED"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_stops_the_sweep_with_everything_before_it_whole(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1100m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine does not let tests mount a disk")
    try:
        arguments = [*small, "--runner", "inline", "--name", "small"]
        process = start(*arguments, "--out", str(disk))
        wait_for_lines(disk / "small/journal.jsonl", 4, process)
        (disk / "filler").write_bytes(b"x")
        with (disk / "filler").open("wb") as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(b"\0" * (1 << 20))
        code, output = finish(process)
        assert code in (1, 2), output
        assert "No space left on device" in output
        (disk / "filler").unlink()
        code, output = finish(start(*arguments, "--resume", "--out", str(disk)))
        assert code == 0, output
        assert sum(states(disk / "small/journal.jsonl").values()) == 4
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("nohup", [False, True])
def test_a_closed_terminal_stops_the_sweep_as_sigterm_does(small: list[str], tmp_path: Path, nohup: bool) -> None:
    terminal, other_end = pty.openpty()
    command = [sys.executable, "-m", "sweeps.run", *small, "--trials", "2", "--epochs", "40"]
    process = subprocess.Popen(
        [*(["nohup"] if nohup else []), *command, "--out", str(tmp_path), "--name", "closed"],
        stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(other_end)
    journal = tmp_path / "closed/journal.jsonl"
    reader = threading.Thread(target=_read_all, args=(terminal,), daemon=True)
    reader.start()
    wait_for_lines(journal, 6, process)
    process.send_signal(signal.SIGHUP)  # as the kernel does to the terminal's processes, with the terminal gone
    os.close(terminal)
    try:
        if nohup:
            wait_for_lines(journal, lines(journal) + 4, process)
            assert process.poll() is None
        else:
            assert process.wait(60) == 129
            history = SweepHistory.load(journal)
            assert [trial.state for trial in history.unfinished] == ["stopped"]
            assert history.stopped is not None
            assert history.stopped.reason == "stopped by SIGHUP"
    finally:
        process.kill()


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass
