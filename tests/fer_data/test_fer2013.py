import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_data import DataError
from fer_data.fer2013 import differences_from_official, read_csv


def row(emotion: object = 0, pixels: str | None = None, usage: str = "Training") -> str:
    return f"{emotion},{' '.join(['7'] * 2304) if pixels is None else pixels},{usage}"


def with_pixel_5(value: str) -> str:
    words = ["7"] * 2304
    words[4] = value
    return " ".join(words)


def message(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read_csv(path)
    return str(raised.value)


def assert_is_the_good_file(path: Path) -> None:
    train, val, test = read_csv(path)
    assert [split.name for split in (train, val, test)] == ["train", "val", "test"]
    assert [split.labels.tolist() for split in (train, val, test)] == [[0, 6, 3], [1, 2], [5]]
    assert train.images.shape == (3, 48, 48)
    assert train.images[2].ravel().tolist() == [i % 256 for i in range(2304)]
    assert val.images[:, 47, 47].tolist() == [30, 40]
    assert np.all(test.images == 255)


def test_reads_each_usage_into_its_split(write_csv, good_rows):
    assert_is_the_good_file(write_csv(good_rows))


@pytest.mark.parametrize(
    "header", [" emotion, pixels , Usage", "\ufeffemotion,pixels,Usage", '"emotion","pixels","Usage"']
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_accepts_bom_crlf_and_spaces_in_names(write_csv, good_rows, header, newline):
    assert_is_the_good_file(write_csv(good_rows, header, newline))


def test_accepts_another_column_order_and_more_columns(write_csv, good_rows):
    rows = ["{2},x,{0},{1}".format(*line.split(",")) for line in good_rows]
    assert_is_the_good_file(write_csv(rows, "Usage,note,emotion,pixels"))


@pytest.mark.parametrize(
    "untidy",
    [
        lambda line: line.replace(" ", "  "),
        lambda line: line.replace(",", " , "),
        lambda line: '"' + line.replace(",", '","') + '"',
        lambda line: line + "\n\n",
        lambda line: line.replace(" 7 ", " 007 "),
    ],
    ids=["double spaces", "spaces around fields", "quotes", "blank lines", "leading zeros"],
)
def test_accepts_untidy_rows(write_csv, good_rows, untidy):
    assert_is_the_good_file(write_csv([untidy(line) for line in good_rows]))


def test_accepts_a_last_line_without_newline(write_csv, good_rows):
    path = write_csv(good_rows)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert_is_the_good_file(path)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("0,1 2 3", "expected 3 fields, got 2"),
        (row(pixels=" ".join(["7"] * 2303)), "2303 pixels, expected 2304 (48×48)"),
        (row(pixels=""), "0 pixels, expected 2304 (48×48)"),
        (row(pixels=with_pixel_5("abc")), "pixel 5 'abc' is not an integer"),
        (row(pixels=with_pixel_5("1.5")), "pixel 5 '1.5' is not an integer"),
        (row(pixels=with_pixel_5("0x1F")), "pixel 5 '0x1F' is not an integer"),
        (row(pixels=with_pixel_5("1_0")), "pixel 5 '1_0' is not an integer"),
        (row(pixels=with_pixel_5("256")), "pixel 5 256 outside 0..255"),
        (row(pixels=with_pixel_5("-1")), "pixel 5 -1 outside 0..255"),
        (row(pixels=with_pixel_5("9" * 5000)), "9... outside 0..255"),
        (row(9), "emotion 9, expected 0..6"),
        (row("Happy"), "emotion Happy, expected 0..6"),
        (row(usage="Train"), "'Train', did you mean 'Training'?"),
        (row(usage="xyz"), "'xyz', expected Training, PublicTest, PrivateTest"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_names_the_line_and_the_fault(write_csv, good_rows, bad, says, newline):
    path = write_csv([*good_rows[:3], "", bad, *good_rows[3:]], newline=newline)
    assert message(path) == f"{path}:6: " + message(path).split(": ", 1)[1]
    assert says in message(path)
    assert "\n" not in message(path)


def test_names_all_faults_of_a_line(write_csv, good_rows):
    text = message(write_csv([*good_rows, row(9, with_pixel_5("300"), "Train")]))
    assert all(part in text for part in ("emotion 9", "pixel 5 300", "'Train'"))


def test_shows_five_faulty_lines_and_counts_the_others(write_csv, good_rows):
    path = write_csv(good_rows + [row(9)] * 317)
    lines = message(path).splitlines()
    assert [line.split(":")[1] for line in lines[:5]] == ["8", "9", "10", "11", "12"]
    assert lines[5:] == ["and 312 more"]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("emotion,pixels", "found emotion, pixels; Usage is missing"),
        ("emotion,pixels,usage", "Usage is missing, did you mean 'usage'?"),
        ("a,b,c", "expected the columns emotion, pixels, Usage; found a, b, c"),
    ],
)
def test_names_missing_columns(write_csv, good_rows, header, says):
    assert says in message(write_csv(good_rows, header))


def test_names_an_empty_split(write_csv, good_rows):
    assert "no rows with Usage=PublicTest" in message(write_csv(good_rows[:3] + good_rows[5:]))


def test_names_a_header_without_rows(write_csv):
    assert "no data rows" in message(write_csv([]))


def test_says_that_a_file_was_cut_short(write_csv, good_rows):
    path = write_csv(good_rows)
    path.write_bytes(path.read_bytes()[:-2000])
    assert re.search(r":7: .*the file ends within this line: truncated", message(path))


def test_names_what_is_not_a_csv(tmp_path):
    link, pipe, empty = tmp_path / "link.csv", tmp_path / "pipe.csv", tmp_path / "empty.csv"
    link.symlink_to(tmp_path / "gone.csv")
    os.mkfifo(pipe)
    empty.touch()
    packed, binary = tmp_path / "fer2013.csv.gz", tmp_path / "fer2013.npy"
    packed.write_bytes(b"\x1f\x8b\x08\x00rest")
    np.save(binary, np.zeros(3))
    assert "is a directory" in message(tmp_path)
    assert f"broken link to {tmp_path}/gone.csv" in message(link)
    assert "not a regular file" in message(pipe)
    assert "is empty" in message(empty)
    assert "gzip archive; unpack it" in message(packed)
    assert "binary data" in message(binary)


def test_names_a_missing_file_and_the_nearest_one(tmp_path):
    (tmp_path / "fer2013.csv").touch()
    assert "no such file, did you mean 'fer2013.csv'?" in message(tmp_path / "fer2031.csv")
    assert f"no folder {tmp_path}/nowhere" in message(tmp_path / "nowhere" / "fer2013.csv")


def test_refuses_a_file_far_larger_than_any_fer2013(tmp_path):
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(3 * 2**30)
    assert "too large: 3.0 GiB, at most 2 GiB" in message(huge)


def test_names_a_file_that_may_not_be_read(write_csv, good_rows):
    path = write_csv(good_rows)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything: be nobody for a moment
        os.seteuid(65534)
    try:
        assert f"{path}: cannot be read: Permission denied" in message(path)
    finally:
        os.seteuid(user)


def test_says_how_a_file_differs_from_the_official_one(write_csv, good_rows):
    splits = read_csv(write_csv(good_rows))
    (note,) = differences_from_official(splits, "0" * 16)
    assert "class counts differ" in note
    assert "train Angry 1 (official 3,995)" in note
    assert "test Neutral 0 (official 626)" in note


@pytest.mark.slow
def test_reads_the_official_file_in_time_and_memory():
    path = os.environ.get("FER2013_CSV")
    if not path:
        pytest.skip("needs the real FER2013: set FER2013_CSV to its csv")
    program = (
        "import sys, resource, pathlib; from fer_data.fer2013 import *; from fer_data.faces import *\n"
        "splits = read_csv(pathlib.Path(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n"
        "print(differences_from_official(splits, fingerprint_of(splits)))\n"
        "print([split.counts(7) for split in splits])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    peak_gib, differences, counts = done.stdout.splitlines()
    assert float(peak_gib) <= 1
    assert differences == "()"
    assert counts == (
        "[[3995, 436, 4097, 7215, 4830, 3171, 4965], [467, 56, 496, 895, 653, 415, 607], "
        "[491, 55, 528, 879, 594, 416, 626]]"
    )
