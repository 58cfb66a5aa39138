"""Durations, sizes, shares and times as they are written on a command line. Each reader raises ArgumentTypeError."""

from __future__ import annotations

import argparse
import math
import re
from contextlib import suppress
from datetime import datetime, timedelta

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def read_seconds(text: str) -> float:
    """A duration with its unit, in seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)\s*", text)
    if not match or not math.isfinite(value := float(match[1]) * _UNITS[match[2]]):
        raise argparse.ArgumentTypeError(f"'{text}': expected a number and a unit, as 30m, 1.5h or 90s")
    return value


def read_bytes(text: str) -> int:
    """A size with its unit."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]iB)\s*", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}': expected a number and a unit, as 20GiB or 500MiB")
    return int(float(match[1]) * 1024 ** (1 + "KMGT".index(match[2][0])))


def read_share(text: str) -> float:
    """A share, in percent or as a number."""
    with suppress(ValueError):
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        if share <= 1:
            return share
    raise argparse.ArgumentTypeError(f"'{text}': expected a share, as 50% or 0.5")


def read_whole_number(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number") from None


def read_number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected a number") from None


def read_moment(text: str) -> datetime:
    """The next `18:00`, or a date and time; in this machine's time zone unless one is given."""
    now = datetime.now()  # without a zone, since a clock change before the moment changes the offset
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text):
            hour, minute = map(int, text.split(":"))
            today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (today if today > now else today + timedelta(days=1)).astimezone()
        moment = datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': expected a time, as 18:00 or 2030-01-31T08:00") from None
    if moment <= now.astimezone():
        raise argparse.ArgumentTypeError(f"'{text}': is in the past; now it is {now:%Y-%m-%d %H:%M}")
    return moment
