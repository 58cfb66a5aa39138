"""Read FER2013's csv (emotion, pixels, Usage), and say what distinguishes a file from the official one."""

from __future__ import annotations

import stat
from pathlib import Path

from fer_data.csv_rows import COLUMNS, SIDE, USAGES, Header, Rows, did_you_mean, fields_of, read_rows
from fer_data.faces import EXPRESSIONS, SPLITS, DataError, Split

# Goodfellow et al. 2013 (arXiv:1307.0414): the challenge's split, Angry..Neutral.
OFFICIAL_COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "val": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}
OFFICIAL_FINGERPRINT = "d08d528a446e9c70"

_MAX_BYTES = 2 * 2**30
_MAX_HEADER_BYTES = 65_536
_ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}

Splits = tuple[Split, Split, Split]


def read_csv(path: Path) -> Splits:
    """Read FER2013's csv into train (Training), val (PublicTest) and test (PrivateTest), [n, 48, 48] each.

    Column order is free and further columns are ignored; a byte order mark, CRLF, blank lines and spaces
    around names and values are accepted.

    Raises:
        DataError: the file cannot be read or is not FER2013's format; faulty lines are named, the first five
            in full, the header being line 1.
    """
    try:
        _check_file(path)
        rows = read_rows(path, _read_header(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    train, val, test = (_split(path, rows, index) for index in range(len(SPLITS)))
    return train, val, test


def differences_from_official(splits: Splits, fingerprint: str) -> tuple[str, ...]:
    """Return what distinguishes these splits from the official FER2013, for a person; empty if nothing."""
    if fingerprint == OFFICIAL_FINGERPRINT:
        return ()
    differing = [
        f"{split.name} {expression} {count:,} (official {official:,})"
        for split in splits
        for expression, count, official in zip(
            EXPRESSIONS, split.counts(len(EXPRESSIONS)), OFFICIAL_COUNTS[split.name], strict=True
        )
        if count != official
    ]
    if differing:
        return ("class counts differ from the official FER2013: " + ", ".join(differing),)
    return ("class counts are the official FER2013's, but pixels or the order of rows differ",)


def _split(path: Path, rows: Rows, usage: int) -> Split:
    mask = rows.usages == usage
    if not mask.any():
        raise DataError(f"{path}: no rows with Usage={USAGES[usage]}; each of {', '.join(USAGES)} is needed")
    return Split(SPLITS[usage], rows.pixels[mask].reshape(-1, SIDE, SIDE), rows.emotions[mask])


def _check_file(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: broken link to {path.readlink()}; point it at the csv")
    if not path.exists():
        raise DataError(f"{path}: no such file{_similar_name(path)}; give the path of fer2013.csv")
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: is a directory; give the csv in it")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file; give a csv")
    if status.st_size == 0:
        raise DataError(f"{path}: is empty; expected a csv with the columns {', '.join(COLUMNS)}")
    if status.st_size > _MAX_BYTES:
        size = f"{status.st_size / 2**30:.1f} GiB, at most {_MAX_BYTES / 2**30:.0f} GiB"
        raise DataError(f"{path}: too large: {size} (FER2013's csv has 0.3 GiB)")


def _similar_name(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    return did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])


def _read_header(path: Path) -> Header:
    with path.open("rb") as file:
        raw = file.readline(_MAX_HEADER_BYTES)
    for magic, kind in _ARCHIVES.items():
        if raw.startswith(magic):
            raise DataError(f"{path}: not a csv: it is a {kind} archive; unpack it first")
    if b"\0" in raw:
        raise DataError(f"{path}: not a csv: it begins with binary data; save it as UTF-8 text")
    names = fields_of(raw.decode("utf-8-sig", errors="replace").partition("\r")[0])
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        hints = "; ".join(f"{name} is missing{did_you_mean(name, names)}" for name in missing)
        found = ", ".join(names)
        raise DataError(
            f"{path}:1: expected the columns {', '.join(COLUMNS)}; "
            f"found {found if len(found) <= 100 else found[:97] + '...'}; {hints}"
        )
    return Header(tuple(names))
