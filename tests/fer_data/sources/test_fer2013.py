import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_data import DataError, DataOptions, Faces, open_cached, prepare
from fer_data.sources.read_source import read_source
from tests.fer_data.conftest import refusal


def row(emotion: object = 0, pixels: str | None = None, usage: str = "Training") -> str:
    return f"{emotion},{' '.join(['7'] * 2304) if pixels is None else pixels},{usage}"


def plain_row(emotion: int, level: int, usage: str = "Training") -> str:
    return row(emotion, " ".join([str(level)] * 2304), usage)


def with_pixel_5(value: str) -> str:
    words = ["7"] * 2304
    words[4] = value
    return " ".join(words)


def faces_of(path: Path, **options: object) -> Faces:
    return open_cached(prepare(DataOptions(source=str(path), **options)))


def assert_is_the_good_file(path: Path) -> None:
    faces = faces_of(path)
    train, val, test = faces.train, faces.val, faces.test
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
        lambda line: re.sub(r"\b7\b", "007", line),
        lambda line: re.sub(r"\b7\b", " 00007", line),
    ],
    ids=["double spaces", "spaces around fields", "quotes", "blank lines", "leading zeros", "many of them"],
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
        (row(usage="Train"), "'Train'; did you mean 'Training'?"),
        (row(usage="xyz"), "'xyz', expected Training, PublicTest, PrivateTest"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_names_the_line_and_the_fault(write_csv, good_rows, bad, says, newline):
    path = write_csv([*good_rows[:3], "", bad, *good_rows[3:]], newline=newline)
    assert refusal(path) == f"{path}:6: " + refusal(path).split(": ", 1)[1]
    assert says in refusal(path)
    assert refusal(path).splitlines()[1:] == ["fix this, or leave these rows out: --skip-bad"]


def test_names_all_faults_of_a_line(write_csv, good_rows):
    text = refusal(write_csv([*good_rows, row(9, with_pixel_5("300"), "Train")]))
    assert all(part in text for part in ("emotion 9", "pixel 5 300", "'Train'"))


def test_shows_five_faulty_lines_and_counts_the_others(write_csv, good_rows):
    path = write_csv(good_rows + [row(9)] * 317)
    lines = refusal(path).splitlines()
    assert [line.split(":")[1] for line in lines[:5]] == ["8", "9", "10", "11", "12"]
    assert lines[5:] == ["and 312 more"]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("emotion,Usage", "found emotion, Usage; pixels is missing"),
        ("emotion,pixels,usage", "Usage is missing; did you mean 'usage'?"),
        ("emotions,pixels,Usage", "emotion is missing; did you mean 'emotions'?"),
        ("emotion,pixels,Usage,pixels", "pixels is given twice"),
        ("a,b,c", "expected the columns emotion, pixels, Usage; found a, b, c"),
        ("pixels", "no column emotion: these faces have no labels (as in Kaggle's test.csv)"),
    ],
)
def test_names_missing_columns(write_csv, good_rows, header, says):
    assert says in refusal(write_csv(good_rows, header))


def test_names_an_empty_split(write_csv, good_rows):
    assert "no rows with Usage=Training" in refusal(write_csv(good_rows[3:]))


def test_without_publictest_a_tenth_of_training_is_val(write_csv):
    training, private = (
        [plain_row(k % 2, k) for k in range(100)],
        [plain_row(k % 2, 200 + k, "PrivateTest") for k in range(10)],
    )
    faces = faces_of(write_csv([*training, *private]))
    assert [split.counts(2) for split in (faces.train, faces.val, faces.test)] == [[45, 45], [5, 5], [5, 5]]
    assert faces.test.images[:, 0, 0].tolist() == list(range(200, 210))
    assert faces.notes == (
        "no rows with Usage=PublicTest: 10 of 100 train images are val (a tenth of each class, copies of a picture "
        "together, seed 0), so numbers do not compare with those of the official split",
        "no image of Fear, Happy, Sad, Surprise, Neutral; choose the others with --classes",
    )


def test_a_split_is_not_made_up_where_its_rows_were_left_out(write_csv):
    training, public = [plain_row(k % 2, k) for k in range(100)], [plain_row(0, 200, "Public")]
    private = [plain_row(1, 210, "PrivateTest")]
    text = refusal(write_csv([*training, *public, *private]), skip_bad=True)
    assert "no sound rows with Usage=PublicTest; left out were" in text
    assert "Usage 'Public'; did you mean 'PublicTest'?" in text
    stray = faces_of(write_csv([*training, *private, "some,notes", ",,"]), skip_bad=True)
    assert [len(stray.train), len(stray.val), len(stray.test)] == [90, 10, 1]


def test_labels_that_count_from_1_are_never_read_one_class_off(write_csv):
    rows = [plain_row(1 + k % 7, k, usage) for usage in ("Training", "PublicTest", "PrivateTest") for k in range(7)]
    path = write_csv(rows)
    for text in (refusal(path), refusal(path, skip_bad=True)):
        assert text.startswith(f"{path}: the column emotion has 7 but never 0, so its labels count from 1")
    six = faces_of(write_csv([line for line in rows if not line.startswith("7")]))
    assert "no row has emotion 0 (Angry): if the labels count from 1, all are read one class off" in six.notes


def test_contempt_as_7_is_left_out_on_request(write_csv, good_rows):
    path = write_csv([*good_rows, row(7, 99)])
    assert "emotion 7, expected 0..6" in refusal(path)
    assert faces_of(path, skip_bad=True).train.labels.tolist() == [0, 6, 3]


def test_stray_last_rows_have_a_way_out(write_csv, good_rows):
    path = write_csv([*good_rows, "some,notes,from,a,spread,sheet", ",,"])
    assert refusal(path).endswith("fix this, or leave these rows out: --skip-bad")
    assert faces_of(path, skip_bad=True).train.labels.tolist() == [0, 6, 3]


def test_names_a_header_without_rows(write_csv):
    assert "no data rows" in refusal(write_csv([]))


def test_says_that_a_file_was_cut_short(write_csv, good_rows):
    path = write_csv(good_rows)
    path.write_bytes(path.read_bytes()[:-2000])
    assert re.search(r":7: .*the file ends within this line: truncated", refusal(path))


def test_the_second_form_of_the_challenge_has_spaces_in_its_names_and_another_order(write_csv, good_rows):
    rows = ["{0},{2},{1}".format(*line.split(",")) for line in good_rows]
    assert_is_the_good_file(write_csv(rows, "emotion, Usage, pixels", name="icml_face_data.csv"))


def test_names_what_is_not_a_csv(tmp_path):
    link, pipe, empty = tmp_path / "link.csv", tmp_path / "pipe.csv", tmp_path / "empty.csv"
    link.symlink_to(tmp_path / "gone.csv")
    os.mkfifo(pipe)
    empty.touch()
    packed, binary = tmp_path / "fer2013.csv.bz2", tmp_path / "fer2013.npy"
    packed.write_bytes(b"BZh9rest")
    np.save(binary, np.zeros(3))
    assert f"broken link to {tmp_path}/gone.csv" in refusal(link)
    assert "not a regular file" in refusal(pipe)
    assert "is empty" in refusal(empty)
    assert "bzip2 archive; unpack it" in refusal(packed)
    assert "binary data" in refusal(binary)


def test_names_a_missing_file_and_the_nearest_one(tmp_path):
    (tmp_path / "fer2013.csv").touch()
    assert "no such file; did you mean 'fer2013.csv'?" in refusal(tmp_path / "fer2031.csv")
    assert f"no folder {tmp_path}/nowhere" in refusal(tmp_path / "nowhere" / "fer2013.csv")


def test_refuses_a_file_far_larger_than_any_fer2013(tmp_path):
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(3 * 2**30)
    assert "too large: 3.0 GiB, at most 2 GiB" in refusal(huge)


def test_names_a_file_that_may_not_be_read(write_csv, good_rows):
    path = write_csv(good_rows)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything: be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=f"{path}: cannot be read: Permission denied"):
            read_source(DataOptions(source=str(path)))
    finally:
        os.seteuid(user)


def test_says_how_a_file_differs_from_the_official_one(write_csv, good_rows):
    note, absent = faces_of(write_csv(good_rows)).notes
    assert absent == "no image of Sad; choose the others with --classes"
    assert "class counts differ" in note
    assert "train Angry 1 (official 3,995)" in note
    assert "test Neutral 0 (official 626)" in note


def test_a_line_of_many_megabytes_is_a_fault_and_no_burden(write_csv, good_rows):
    path = write_csv([*good_rows[:2], "0," + "7" * 3 * 2**20, *good_rows[2:]])
    assert refusal(path).splitlines()[0] == f"{path}:4: longer than 1,048,576 characters"
    assert faces_of(path, skip_bad=True).train.labels.tolist() == [0, 6, 3]


def test_far_too_many_rows_are_refused(write_csv, good_rows, monkeypatch):
    monkeypatch.setattr("fer_data.sources.csv_rows.MAX_ROWS", 4)
    assert "more than 4 rows" in refusal(write_csv(good_rows))
    assert "more than 4 rows" in refusal(write_csv([line.replace(",", " , ") for line in good_rows]))


def test_faulty_rows_are_left_out_on_request_and_said(write_csv, good_rows):
    bad = [row(9), "0,1 2 3", row(usage="Train"), row(8), row(pixels=with_pixel_5("x")), row(7)]
    path = write_csv([*good_rows[:3], *bad, *good_rows[3:]])
    faces, whole = faces_of(path, skip_bad=True), faces_of(write_csv(good_rows, name="good.csv"))
    assert [split.labels.tolist() for split in (faces.train, faces.val, faces.test)] == [[0, 6, 3], [1, 2], [5]]
    assert faces.notes[-1] == (
        "6 faulty left out: line 5: emotion 9, expected 0..6; line 6: expected 3 fields, got 2; "
        "line 7: Usage 'Train'; did you mean 'Training'?; line 8: emotion 8, expected 0..6; "
        "line 9: pixel 5 'x' is not an integer; and 1 more"
    )
    assert faces.fingerprint != whole.fingerprint
    assert faces_of(write_csv(good_rows, name="again.csv"), skip_bad=True).fingerprint == whole.fingerprint


def test_nothing_is_left_out_where_everything_is_faulty(write_csv):
    text = refusal(write_csv([row(9)] * 7), skip_bad=True)
    assert text.splitlines()[5:] == ["and 2 more"]


def kaggle_rows(n: int) -> list[str]:
    """n faces without Usage of two classes, 2 to 1, each second one a copy of the one before."""
    return [f"{3 if k % 6 < 4 else 4},{' '.join([str(k // 2 % 256)] * 2304)}" for k in range(n)]


def test_without_usage_a_tenth_each_is_carved_out(write_csv):
    path = write_csv(kaggle_rows(240), "emotion,pixels", name="train.csv")
    faces = faces_of(path)
    splits = (faces.train, faces.val, faces.test)
    assert [split.counts(7)[3:5] for split in splits] == [[128, 64], [16, 8], [16, 8]]
    pictures = [set(split.images[:, 0, 0].tolist()) for split in splits]
    assert [len(found) for found in pictures] == [96, 12, 12]  # both copies of each picture
    assert len(set.union(*pictures)) == 120
    note, absent = faces.notes
    assert absent == "no image of Angry, Disgust, Fear, Surprise, Neutral; choose the others with --classes"
    assert note.startswith("no Usage column: 24 of 240 train images are val and 24 are test (a tenth of each class")
    again = write_csv(kaggle_rows(240), "emotion,pixels", newline="\r\n", name="again.csv")
    assert faces_of(again).fingerprint == faces.fingerprint


def test_too_few_rows_to_carve_from_are_refused(write_csv):
    assert "no rows with Usage=" in refusal(write_csv(kaggle_rows(4), "emotion,pixels"))


def test_images_are_resized_by_the_mean_of_their_areas(write_csv, good_rows):
    faces = faces_of(write_csv(good_rows), resize=24)
    blocks = (np.arange(2304) % 256).reshape(24, 2, 24, 2).mean(axis=(1, 3))
    assert faces.train.images.shape == (3, 24, 24)
    assert np.abs(faces.train.images[2] - blocks).max() <= 0.5
    assert faces.notes[-1] == "images resized from 48×48 to 24×24 (area)"


@pytest.mark.slow
def test_reads_the_official_file_in_a_gigabyte(official_csv):
    # Not ru_maxrss, which begins with the size of the process that started this one.
    program = (
        "import re, sys; from fer_data import *\n"
        "faces = open_cached(prepare(sys.argv[1]))\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) / 2**20)\n"
        "print(faces.name, faces.notes)\n"
        "print([split.counts(7) for split in (faces.train, faces.val, faces.test)])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, official_csv], capture_output=True, text=True, check=True)
    peak_gib, differences, counts = done.stdout.splitlines()
    assert float(peak_gib) <= 1
    assert differences == "FER2013 ()"
    assert counts == (
        "[[3995, 436, 4097, 7215, 4830, 3171, 4965], [467, 56, 496, 895, 653, 415, 607], "
        "[491, 55, 528, 879, 594, 416, 626]]"
    )


@pytest.mark.slow
def test_the_other_forms_of_the_challenge_are_read_alike(official_csv, tmp_path):
    rows = [line.split(",") for line in official_csv.read_text().splitlines()[1:]]
    icml, train = tmp_path / "icml_face_data.csv", tmp_path / "train.csv"
    icml.write_text("emotion, Usage, pixels\n" + "".join(f"{e},{u},{p}\n" for e, p, u in rows))
    training = (f'{e},"{p}"\r\n' for e, p, u in rows if u == "Training")
    train.write_text("emotion,pixels\r\n" + "".join(training), newline="")
    assert hashlib.md5(icml.read_bytes()).hexdigest() == "b114b9e04e6949e5fe8b6a98b3892b1d"
    assert hashlib.md5(train.read_bytes()).hexdigest() == "3f0dfb3d3fd99c811a1299cb947e3131"
    assert (faces_of(icml).name, faces_of(icml).notes) == ("FER2013", ())
    carved = faces_of(train)
    assert [len(carved.train), len(carved.val), len(carved.test)] == [22967, 2871, 2871]
    assert not carved.val.leaked.any()
    assert not carved.test.leaked.any()
