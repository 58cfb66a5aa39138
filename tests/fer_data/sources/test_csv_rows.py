import csv
import io
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_data import DataError
from fer_data.sources.compressed import Text
from fer_data.sources.csv_arrow import read_rows
from fer_data.sources.csv_rows import USAGES, Header, Rows, fields_of

NAMES = ("Usage", "note", "emotion", "pixels")
OPTIONS = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))

notes = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=8)
rows = st.lists(
    st.tuples(st.sampled_from(USAGES), notes, st.integers(0, 6), st.integers(0, 2**32 - 1)), min_size=1, max_size=4
)


def written(table, **dialect) -> str:
    """What Python's csv module writes for these rows, the last number of each being the seed of its pixels."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, **dialect)
    writer.writerow(NAMES)
    for usage, note, emotion, seed in table:
        writer.writerow((usage, note, emotion, " ".join(map(str, np.random.default_rng(seed).integers(0, 256, 2304)))))
    return buffer.getvalue()


def read(text: str, **options: bool) -> Rows:
    data = text.encode()
    return read_rows(Text(io.BytesIO(data), "faces.csv", len(data)), Header(NAMES), **options)


def as_python_reads(text: str) -> list[tuple[str, str, list[int]]]:
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row][1:]
    return [(usage, emotion, [int(word) for word in pixels.split()]) for usage, _, emotion, pixels in rows]


def as_python_reads_each_line(text: str) -> list[tuple[str, str, list[int]] | None]:
    """Each line by itself, None where a human would call it faulty."""
    return [_plain(next(csv.reader([line, ""]), [])) for line in text.split("\n")[1:] if line]


def _plain(row: list[str]) -> tuple[str, str, list[int]] | None:
    if len(row) != 4:
        return None
    usage, _, emotion, pixels = (value.strip() for value in row)
    levels = [int(word) for word in pixels.split() if re.fullmatch("[0-9]+", word) and int(word) < 256]
    right = len(levels) == len(pixels.split()) == 2304 and usage in USAGES and emotion in set("0123456")
    return (usage, emotion, levels) if right else None


def as_we_read(rows: Rows) -> list[tuple[str, str, list[int]]]:
    assert rows.usages is not None
    columns = zip(rows.usages, rows.emotions, rows.pixels, strict=True)
    return [(USAGES[usage], str(emotion), pixels.tolist()) for usage, emotion, pixels in columns]


@OPTIONS
@given(
    table=rows,
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    newline=st.sampled_from(["\n", "\r\n"]),
    untidy=st.booleans(),
)
def test_what_pythons_csv_module_writes_is_read_as_it_reads_it(table, quoting, newline, untidy):
    text = written(table, quoting=quoting, lineterminator=newline)
    if untidy:  # a blank before a quote is no part of what Python's writer may write: only between the pixels
        text = text.replace("0 ", "0  ") + newline
    assert as_we_read(read(text)) == as_python_reads(text)


@OPTIONS
@given(table=rows, place=st.floats(0, 1), character=st.sampled_from([*'0 x-,+.\t"', "٣"]))
def test_one_wrong_character_is_either_read_as_python_reads_it_or_a_fault(table, place, character):
    text = written(table, lineterminator="\n")
    start = text.index("\n") + 1
    at = start + int(place * (len(text) - start - 1))
    text = text[:at] + character + text[at + 1 :]
    try:
        found = read(text)
    except DataError:
        kept = [row for row in as_python_reads_each_line(text) if row is not None]
        assert not kept or as_we_read(read(text, skip_bad=True)) == kept
    else:
        assert as_we_read(found) == as_python_reads(text)


def test_positions_count_all_rows_of_the_file():
    lines = written([("Training", "", k, k) for k in range(5)], lineterminator="\n").splitlines()
    lines[2] = lines[2].replace(",1,", ",9,")
    found = read("\n".join([*lines[:4], "", *lines[4:]]), skip_bad=True)
    assert found.positions.tolist() == [0, 2, 3, 4]
    assert (found.total, found.emotions.tolist()) == (5, [0, 2, 3, 4])


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a, b ,c\n", ["a", "b", "c"]),
        ('"a, b", "c"\n', ["a, b", "c"]),
        ("", []),
        ('"say ""hi""",\n', ['say "hi"', ""]),
    ],
)
def test_fields_are_those_of_csv(line, fields):
    assert fields_of(line) == fields
