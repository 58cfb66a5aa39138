from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo

import pytest

from fer_common.quantities import read_bytes, read_moment, read_seconds, read_share


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (read_seconds, "90s", 90.0),
        (read_seconds, "30m", 1800.0),
        (read_seconds, "30 min", 1800.0),
        (read_seconds, "1.5h", 5400.0),
        (read_bytes, "20GiB", 20 << 30),
        (read_bytes, "0.5 MiB", 1 << 19),
        (read_share, "50%", 0.5),
        (read_share, "0.5", 0.5),
    ],
)
def test_a_quantity_is_read_with_its_unit(read: Callable[[str], float], text: str, value: float) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (read_seconds, "30", "expected a number and a unit, as 30m, 1.5h or 90s"),
        (read_seconds, "-1s", "expected a number and a unit"),
        (read_seconds, "9" * 400 + "h", "expected a number and a unit"),
        (read_bytes, "20GB", "expected a number and a unit, as 20GiB or 500MiB"),
        (read_share, "half", "expected a share, as 50% or 0.5"),
        (read_moment, "tomorrow", "expected a time, as 18:00 or 2030-01-31T08:00"),
        (read_moment, "25:00", "expected a time"),
        (read_moment, "2020-01-31T08:00", "is in the past; now it is 20"),
    ],
)
def test_what_is_no_quantity_is_told_how_to_write_one(read: Callable[[str], object], text: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as raised:
        read(text)
    assert str(raised.value).startswith(f"'{text}': {says}")


def test_a_time_of_day_is_the_next_one() -> None:
    now = datetime.now().astimezone()
    for moment in (now - timedelta(minutes=2), now + timedelta(minutes=2)):
        found = read_moment(f"{moment:%H:%M}")
        assert now < found <= now + timedelta(days=1, minutes=1)
        assert (found.hour, found.minute) == (moment.hour, moment.minute)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("now", "moment"),
    [
        ("2026-10-24T20:00", "2026-10-25T18:00+01:00"),  # summer time ends at 03:00 on the 25th
        ("2026-03-28T20:00", "2026-03-29T18:00+02:00"),  # and begins at 02:00 on the 29th
        ("2026-03-29T01:00", "2026-03-29T18:00+02:00"),
    ],
)
def test_a_time_of_day_is_local_after_a_clock_change(monkeypatch: pytest.MonkeyPatch, now: str, moment: str) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromisoformat(now)

    monkeypatch.setattr("fer_common.quantities.datetime", Clock)
    assert read_moment("18:00") == datetime.fromisoformat(moment)


def test_a_date_keeps_its_zone() -> None:
    assert read_moment("2100-01-31T08:00+02:00") == datetime.fromisoformat("2100-01-31T06:00+00:00")
