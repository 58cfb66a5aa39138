import os
from pathlib import Path

import numpy as np
import pytest

from fer_data import DataError, DataOptions, Faces, open_cached, prepare

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
# For the rows of good_rows: three train (Angry, Neutral, Happy), two val (Disgust, Fear), one test (Surprise).
VOTES = [
    ("Training", [0, 6, 0, 0, 4, 0, 0, 0, 0, 0]),  # Happy
    ("Training", [1, 0, 0, 2, 2, 0, 0, 1, 4, 0]),  # unknown: dropped
    ("Training", [0, 0, 0, 5, 0, 0, 0, 5, 0, 0]),  # a tie of Sad and contempt: Sad stands first
    ("PublicTest", [0, 0, 0, 0, 0, 3, 7, 0, 0, 0]),  # Fear
    ("PublicTest", [0, 0, 0, 0, 0, 0, 0, 0, 0, 10]),  # no face: dropped
    ("PrivateTest", [3, 0, 0, 0, 3, 4, 0, 0, 0, 0]),  # Disgust
]


def lines(votes: list[tuple[str, list[int]]]) -> list[str]:
    return [HEADER, *(f"{usage},,{','.join(map(str, counts))}" for usage, counts in votes)]


@pytest.fixture
def write_votes(tmp_path):
    def write(content: list[str]) -> Path:
        path = tmp_path / "fer2013new.csv"
        path.write_text("\n".join([*content, ""]))
        return path

    return write


def faces_of(path: Path, votes: Path, labels: str = "ferplus-plurality", **options: object) -> Faces:
    return open_cached(prepare(DataOptions(source=str(path), ferplus=str(votes), labels=labels, **options)))


def message(*args: object, **options: object) -> str:
    with pytest.raises(DataError) as raised:
        faces_of(*args, **options)
    return str(raised.value)


def test_labels_are_the_plurality_and_rows_without_an_expression_are_dropped(write_csv, good_rows, write_votes):
    faces = faces_of(write_csv(good_rows), write_votes(lines(VOTES)))
    assert [split.labels.tolist() for split in (faces.train, faces.val, faces.test)] == [[3, 4], [2], [1]]
    assert faces.train.images[:, 0, 0].tolist() == [0, 0]
    assert faces.train.images[1, 0, :3].tolist() == [0, 1, 2]
    assert faces.val.images[:, 0, 0].tolist() == [30]
    assert faces.train.soft_labels is None
    assert faces.name == "faces with FER+ labels"
    assert faces.notes[-1] == (
        "labels are the plurality of FER+'s votes; images whose plurality is contempt, unknown or no face, are dropped "
        "(1 train, 1 val, 0 test)"
    )


# FER+'s own reader (microsoft/FERPlus, src/ferplus.py, mode "majority"): single votes removed, then more than half.
BY_MAJORITY = [
    ("Training", [0, 6, 0, 0, 4, 0, 0, 0, 0, 0], 3),  # Happy: 6 of 10
    ("Training", [0, 0, 0, 5, 0, 0, 0, 5, 0, 0], None),  # half is not more than half
    ("Training", [3, 1, 1, 0, 2, 1, 1, 1, 0, 0], 6),  # Neutral: 3 of the 5 that are left
    ("Training", [1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),  # nothing is left
    ("Training", [4, 3, 0, 3, 0, 0, 0, 0, 0, 0], None),  # the most, but 4 of 10
    ("Training", [2, 0, 0, 0, 0, 0, 0, 8, 0, 0], None),  # contempt is none of FER2013's
    ("PublicTest", [2, 0, 0, 3, 0, 0, 0, 0, 5, 0], None),  # unknown counts as one of the ten
    ("PublicTest", [0, 0, 0, 0, 7, 3, 0, 0, 0, 0], 0),  # Angry
    ("PrivateTest", [1, 0, 0, 0, 0, 0, 8, 0, 1, 0], 2),  # Fear
]


def test_the_majority_is_taken_as_ferplus_itself_takes_it(write_csv, write_votes):
    rows = [f"5,{' '.join([str(k)] * 2304)},{usage}" for k, (usage, _, _) in enumerate(BY_MAJORITY)]
    votes = write_votes(lines([(usage, counts) for usage, counts, _ in BY_MAJORITY]))
    faces = faces_of(write_csv(rows), votes, "ferplus-majority")
    for split, usage in ((faces.train, "Training"), (faces.val, "PublicTest"), (faces.test, "PrivateTest")):
        expected = [(k, label) for k, (of, _, label) in enumerate(BY_MAJORITY) if of == usage and label is not None]
        assert list(zip(split.images[:, 0, 0].tolist(), split.labels.tolist(), strict=True)) == expected
    assert faces.name == "faces with FER+ majority labels"
    assert faces.notes[-1] == (
        "labels are the majority of FER+'s votes; images without one, or whose majority is contempt, unknown or no "
        "face, are dropped (4 train, 1 val, 0 test)"
    )


def test_soft_labels_are_the_shares_of_the_votes_in_training_alone(write_csv, good_rows, write_votes):
    path, votes = write_csv(good_rows), write_votes(lines(VOTES))
    soft, hard = faces_of(path, votes, "ferplus-soft"), faces_of(path, votes)
    assert soft.train.labels.tolist() == [3, 4]
    assert np.allclose(soft.train.soft_labels, [[0.4, 0, 0, 0.6, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]])
    assert soft.train.soft_labels.dtype == np.float32
    assert soft.val.soft_labels is None
    assert soft.test.soft_labels is None
    plain = open_cached(prepare(path))
    assert len({soft.fingerprint, hard.fingerprint, plain.fingerprint}) == 3
    assert plain.train.labels.tolist() == [0, 6, 3]


def test_folds_train_on_the_votes_of_what_was_val(write_csv, write_votes):
    usages = ["Training"] * 4 + ["PublicTest"] * 4 + ["PrivateTest"] * 2
    rows = [f"0,{' '.join([str(k)] * 2304)},{usage}" for k, usage in enumerate(usages)]
    votes = [(usage, [0, 6 - 2 * (k % 2), 0, 4 + 2 * (k % 2), *[0] * 6]) for k, usage in enumerate(usages)]
    options = {"classes": ("sad", "happy"), "fold": 1, "folds": 2}
    part = faces_of(write_csv(rows), write_votes(lines(votes)), "ferplus-soft", **options)
    odd = part.train.images[:, 0, 0] % 2
    assert len(odd) == 4
    assert any(part.train.images[:, 0, 0] >= 4)
    assert np.allclose(part.train.soft_labels, np.where(odd[:, None], [0.6, 0.4], [0.4, 0.6]))
    assert part.val.soft_labels is None


def test_rows_left_out_keep_their_votes_from_others(write_csv, good_rows, write_votes):
    bad = good_rows[0].replace("0,", "9,", 1)
    path = write_csv([good_rows[0], bad, *good_rows[2:]])
    faces = faces_of(path, write_votes(lines(VOTES)), skip_bad=True)
    assert [split.labels.tolist() for split in (faces.train, faces.val, faces.test)] == [[3, 4], [2], [1]]


def test_another_length_is_refused(write_csv, good_rows, write_votes):
    assert "5 rows, but the csv of faces has 6" in message(write_csv(good_rows), write_votes(lines(VOTES[:5])))


def test_another_order_is_refused(write_csv, good_rows, write_votes):
    votes = write_votes(lines([*VOTES[:2], VOTES[3], VOTES[2], *VOTES[4:]]))
    assert "row 3 is PublicTest here and Training in the csv of faces" in message(write_csv(good_rows), votes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda text: text.replace("sadness", "sad"),
            ":1: not FER.'s fer2013new.csv.*; sadness is missing; did you mean 'sad'",
        ),
        (lambda text: text.replace("0,6,0", "0,x,0"), ":2: happiness 'x', expected 0..10"),
        (lambda text: text.replace("0,6,0", "0,-6,0"), ":2: happiness '-6', expected 0..10"),
        (lambda text: text.replace("0,6,0", "0,11,0"), ":2: happiness '11', expected 0..10"),
        (lambda text: text.replace("0,6,0", "0,0"), ":2: expected 12 fields, got 11"),
        (lambda text: text.replace("PrivateTest", "Private"), ":7: Usage 'Private', expected Training"),
    ],
)
def test_faults_of_the_votes_are_named(write_csv, good_rows, write_votes, change, says):
    votes = write_votes(change("\n".join(lines(VOTES))).split("\n"))
    with pytest.raises(DataError, match=f"{votes}{says}"):
        faces_of(write_csv(good_rows), votes)


def test_a_missing_file_of_votes_is_named(write_csv, good_rows, tmp_path):
    assert "gone.csv: cannot be read: No such file" in message(write_csv(good_rows), tmp_path / "gone.csv")


def test_changed_votes_are_read_again(write_csv, good_rows, write_votes):
    path = write_csv(good_rows)
    first = faces_of(path, write_votes(lines(VOTES)))
    votes = write_votes([line.replace("0,6,0,0,4", "6,0,0,0,4") for line in lines(VOTES)])
    os.utime(votes, ns=(1, 1))
    assert faces_of(path, votes).train.labels.tolist() == [6, 4]
    assert first.train.labels.tolist() == [3, 4]


def test_faces_that_are_no_csv_have_no_such_labels(write_votes):
    with pytest.raises(DataError, match="synthetic faces: FER\\+'s labels belong to the rows of FER2013's csv"):
        prepare(DataOptions(ferplus=str(write_votes(lines(VOTES))), labels="ferplus-majority"))


@pytest.mark.slow
def test_the_votes_agree_with_the_official_labels_on_62_percent(official_csv):
    votes = os.environ.get("FERPLUS_CSV")
    if not votes:
        pytest.skip("needs the real FER+: set FERPLUS_CSV to its fer2013new.csv")
    fer, plus = open_cached(prepare(official_csv)), faces_of(official_csv, Path(votes), "ferplus-soft")
    counts = np.genfromtxt(votes, delimiter=",", skip_header=1, usecols=range(2, 12))
    parts = np.split(counts.argmax(axis=1) < 7, [28709, 28709 + 3589])
    expected = [(485, 0.6235), (60, 0.6211), (70, 0.6216)]  # by numpy on the two files
    for name, kept, (dropped, agreement) in zip(("train", "val", "test"), parts, expected, strict=True):
        ours, theirs = getattr(fer, name), getattr(plus, name)
        assert np.count_nonzero(~kept) == dropped
        assert np.array_equal(ours.images[kept], theirs.images)
        assert np.count_nonzero(ours.labels[kept] == theirs.labels) / len(ours) == pytest.approx(agreement, abs=5e-5)
    assert np.allclose(plus.train.soft_labels.sum(axis=1), 1)
    own = faces_of(official_csv, Path(votes), "ferplus-majority")
    assert [len(split) for split in (plus.train, plus.val, plus.test)] == [28_224, 3_529, 3_519]
    assert [len(split) for split in (own.train, own.val, own.test)] == [24_941, 3_186, 3_137]
