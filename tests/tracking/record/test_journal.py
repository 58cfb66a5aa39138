import errno
import gc
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import ROOT
from tests.tracking.small_sweep import Sweep
from tracking.errors import TrackingError
from tracking.record.events import EVENT, FORMAT, AttemptStarted, DriverStopped, EpochDone, SweepStarted, Verdict
from tracking.record.folder_lock import folder_holder, hold_folder
from tracking.record.history import SweepHistory
from tracking.record.journal import Journal, read, read_from, trim_torn_tail
from tracking.record.layout import SweepFolder


@given(st.floats(), st.floats(), st.integers(0, 2**53))
def test_numbers_come_back_to_the_last_bit(value: float, rate: float, iteration: int) -> None:
    event = EpochDone(time_ms=1, trial=0, epoch=1, metrics={"m": value}, iterations=((iteration, value, rate),))
    line = event.model_dump_json()
    json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    back = EVENT.validate_json(line)
    assert isinstance(back, EpochDone)
    assert math.isnan(value) or math.copysign(1, back.metrics["m"]) == math.copysign(1, value)
    assert repr(back) == repr(event)


def test_every_event_comes_back_in_order(sweep: Sweep) -> None:
    sweep.whole()
    events = list(read(sweep.folder.journal))
    assert [event.event for event in events[:4]] == ["sweep", "driver", "trial", "attempt"]
    assert [event.time_ms for event in events] == list(range(1_700_000_000_001, sweep.time_ms + 1))
    assert len(events) == 2 + 3 * 2 + 9 + 3 + 1


def test_any_prefix_of_the_file_is_recovered(sweep: Sweep) -> None:
    sweep.whole()
    path = sweep.folder.journal
    whole = path.read_bytes()
    events = list(read(path))
    for length in range(1, len(whole), 61):
        path.write_bytes(whole[:length])
        expected = whole[:length].count(b"\n")
        assert list(read(path)) == events[:expected]
        assert trim_torn_tail(path) == length - (whole.rfind(b"\n", 0, length) + 1)
        stop = DriverStopped(time_ms=5, reason="again")
        if expected:
            with Journal.open(path) as journal:
                journal.append(stop)
            assert list(read(path)) == [*events[:expected], stop]


def test_zeros_that_a_power_cut_left_are_cut_off(sweep: Sweep) -> None:
    sweep.start()
    whole = sweep.folder.journal.read_bytes()
    sweep.folder.journal.write_bytes(whole + b"\0" * 100)
    assert trim_torn_tail(sweep.folder.journal) == 100
    assert sweep.folder.journal.read_bytes() == whole


def test_a_corrupt_line_in_the_middle_is_named(sweep: Sweep) -> None:
    sweep.whole()
    lines = sweep.folder.journal.read_bytes().splitlines(keepends=True)
    lines[4] = b'{"event": "epo\n'
    sweep.folder.journal.write_bytes(b"".join(lines))
    with pytest.raises(TrackingError, match=r"journal\.jsonl:5: not an event"):
        list(read(sweep.folder.journal))


def test_the_garbage_collector_is_as_before_when_a_journal_was_read_or_is_damaged(sweep: Sweep) -> None:
    sweep.whole()
    SweepHistory.load(sweep.folder.journal)
    assert gc.isenabled()
    with sweep.folder.journal.open("ab") as file:
        file.write(b'{"event": "party", "time_ms": 1}\n')
    with pytest.raises(TrackingError):
        SweepHistory.load(sweep.folder.journal)
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(TrackingError):
            SweepHistory.load(sweep.folder.journal)
        assert not gc.isenabled(), "it was disabled before the read"
    finally:
        gc.enable()


def test_an_unknown_event_is_refused_at_the_end_too(sweep: Sweep) -> None:
    sweep.start()
    with sweep.folder.journal.open("ab") as file:
        file.write(b'{"event": "party", "time_ms": 1}\n')
    with pytest.raises(TrackingError, match=r":3: .*party"):
        list(read(sweep.folder.journal))


def test_a_newer_format_is_refused_when_opened(sweep: Sweep) -> None:
    path = sweep.folder.journal
    path.write_text(f'{{"event": "sweep", "format": {FORMAT + 1}, "something": "else"}}\n')
    for use in (lambda: list(read(path)), lambda: Journal.open(path)):
        with pytest.raises(TrackingError, match=rf"format {FORMAT + 1}, this version reads up to {FORMAT}: upgrade"):
            use()


def test_a_journal_that_a_newer_version_went_on_with_is_refused(sweep: Sweep) -> None:
    """Its first line is of the version that began it; each driver says which lines it writes."""
    sweep.start()
    line = json.loads(sweep.folder.journal.read_text().splitlines()[1])
    with sweep.folder.journal.open("a") as file:
        file.write(json.dumps(line | {"format": FORMAT + 1}, separators=(",", ":")) + "\n")
    with pytest.raises(TrackingError, match=rf"format {FORMAT + 1}, this version reads up to {FORMAT}: upgrade"):
        list(read(sweep.folder.journal))


def test_a_follower_gets_each_event_once(sweep: Sweep) -> None:
    sweep.start()
    got, offset = read_from(sweep.folder.journal, 0)
    assert read_from(sweep.folder.journal, offset) == ([], offset)
    sweep.trial(0)
    with sweep.folder.journal.open("ab") as file:
        file.write(b'{"event": "stopped", "rea')
    more, offset = read_from(sweep.folder.journal, offset)
    assert [event.event for event in got + more] == ["sweep", "driver", "trial", "attempt"]
    with sweep.folder.journal.open("ab") as file:
        file.write(b'son": "x", "time_ms": 3}\n')
    assert read_from(sweep.folder.journal, offset)[0] == [DriverStopped(time_ms=3, reason="x")]


def test_a_line_that_is_being_written_is_not_taken_for_a_corrupt_one(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader gets the first half; before it looks whether the file continues, the writer has added the other."""
    sweep.whole()
    journal = sweep.folder.journal
    content, events = journal.read_bytes(), list(read(journal))
    journal.write_bytes(content[: content.rindex(b"\n", 0, -1) + 20])
    path_open = Path.open

    class Growing(io.BufferedReader):
        def readlines(self, hint: int = -1, /) -> list[bytes]:
            lines = super().readlines(hint)
            with open(journal, "wb") as writer:  # noqa: PTH123
                writer.write(content)
            return lines

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Growing(path_open(path, mode, 0)))
        seen, offset = read_from(journal, 0)
    rest, end = read_from(journal, offset)
    assert [*seen, *rest] == events
    assert end == len(content)


def test_nothing_beyond_the_end_asked_for_is_read(sweep: Sweep) -> None:
    sweep.start()
    end = sweep.folder.journal.stat().st_size
    sweep.trial(0)
    assert [event.event for event in read(sweep.folder.journal, end)] == ["sweep", "driver"]


_FILL = """
import resource, sys
from pathlib import Path
from tracking.record.events import DriverStopped
from tracking.record.journal import Journal
from tracking.errors import TrackingError
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
journal = Journal.open(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, resource.RLIM_INFINITY))
try:
    journal.append(DriverStopped(reason="a"), DriverStopped(reason="b" * 500))
except TrackingError as error:
    print(error)
"""


def test_what_the_disk_refuses_leaves_the_file_as_it_was(sweep: Sweep) -> None:
    """A limit on the file's size stands for a full disk: the write is cut short, the rest refused."""
    sweep.start()
    before = sweep.folder.journal.read_bytes()
    command = [sys.executable, "-c", _FILL, str(sweep.folder.journal)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert f"cannot write to {sweep.folder.journal}" in done.stdout
    assert "recorded before is whole" in done.stdout
    assert sweep.folder.journal.read_bytes() == before


def test_two_openings_are_refused(sweep: Sweep) -> None:
    sweep.start()
    sweep.write(SweepStarted(sweep_id="a" * 32, name="b", space="c", spec={}))
    with pytest.raises(TrackingError, match=r":3: 'sweep' event"):
        list(read(sweep.folder.journal))


def test_history_of_a_whole_sweep(sweep: Sweep) -> None:
    sweep.whole()
    history = SweepHistory.load(sweep.folder.journal)
    assert [history.trials[number].state for number in range(3)] == ["done", "pruned", "done"]
    assert history.trials[1].last_epoch == 3
    best = history.trials[1].best_epoch()
    assert best is not None
    assert best.epoch == 3
    assert (history.next_number, history.unfinished, history.count("done")) == (3, [], 2)
    assert history.finished is not None


def test_history_of_a_trial_stopped_and_taken_up_again(sweep: Sweep) -> None:
    sweep.start()
    sweep.trial(0)
    sweep.epoch(0, 1)
    sweep.write(Verdict(trial=0, state="pruned", epoch=1, reason="rank 9 of 9"))
    sweep.end(0, "stopped", final=False)
    sweep.stop()
    stopped = SweepHistory.load(sweep.folder.journal)
    assert stopped.stopped is not None
    assert [(trial.number, trial.state) for trial in stopped.unfinished] == [(0, "stopped")]
    sweep.write(sweep.driver(resumed=True), AttemptStarted(trial=0, attempt=1, reason="resumed"))
    sweep.epoch(0, 1)
    history = SweepHistory.load(sweep.folder.journal)
    assert (history.trials[0].state, history.stopped) == ("running", None)
    assert history.trials[0].verdict is not None, "what was decided stays decided"
    assert len(history.trials[0].epochs) == 1
    assert len(history.trials[0].attempts) == 2


def test_an_epoch_of_a_trial_never_started_is_refused(sweep: Sweep) -> None:
    sweep.start()
    sweep.epoch(4, 1)
    with pytest.raises(TrackingError, match="trial 4, which it never started"):
        SweepHistory.load(sweep.folder.journal)


_HOLD = """
import sys
from pathlib import Path
from tracking.record.folder_lock import hold_folder
with hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_driver_is_told_who_holds_the_folder(sweep: Sweep) -> None:
    root = sweep.folder.root
    command = [sys.executable, "-c", _HOLD, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TrackingError, match=rf"pid {other.pid}, since 20\d\d-"), hold_folder(root):
            pass
        holder = folder_holder(root)
        assert holder is not None
        assert holder.pid == other.pid
        other.kill()
    assert folder_holder(root) is None
    with hold_folder(root):
        assert folder_holder(root) is not None
    assert folder_holder(root) is None


def test_a_lock_that_cannot_be_written_is_named(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    message = f"cannot write {sweep.folder.lock}: No space left on device"
    with pytest.raises(TrackingError, match=f"^{re.escape(message)}$"), hold_folder(sweep.folder.root):
        pass
    assert folder_holder(sweep.folder.root) is None


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "deep" / "sweep").create()
    assert folder.root.stat().st_mode & 0o777 == 0o700
    folder.root.chmod(0o777)
    with pytest.raises(TrackingError, match="chmod go-w"):
        folder.create()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep").create()
    os.chown(folder.root, 12345, -1)
    with pytest.raises(TrackingError, match="belongs to user id 12345"):
        folder.create()


def test_reading_a_journal_needs_no_heavy_library() -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'mlflow', 'sklearn', 'scipy', 'ray'}"
    code = f"import sys, tracking, tracking.mlflow_sync.sink; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
