import lmdb
import numpy as np
import pytest

from fer_data import EXPRESSIONS, DataError
from fer_data.sources.caffe_proto import parse_datum
from fer_data.sources.lmdb_faces import read_lmdb, write_lmdb
from tests.fer_data.image_trees import PLAIN, SKIPPING, small_faces


@pytest.fixture
def databases(tmp_path):
    faces = small_faces()
    for split in (faces.train, faces.val, faces.test):
        write_lmdb(tmp_path / split.name, split)
    return tmp_path


def put(folder, **entries: bytes) -> None:
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key.encode(), value)


def fault(root, options=PLAIN) -> str:
    with pytest.raises(DataError) as raised:
        read_lmdb(root, options)
    return str(raised.value)


def test_faces_come_back_as_they_were(databases):
    faces, read = small_faces(), read_lmdb(databases, PLAIN)
    assert read.classes == EXPRESSIONS
    for back, split in zip(read.splits, (faces.train, faces.val, faces.test), strict=True):
        assert back.name == split.name
        assert np.array_equal(back.images, split.images)
        assert np.array_equal(back.labels, split.labels)


def test_keys_and_values_are_those_of_convert_imageset(databases):
    train = small_faces().train
    with lmdb.open(str(databases / "train"), readonly=True, lock=False) as environment:
        entries = list(environment.begin().cursor())
    assert [key.decode() for key, _ in entries[:2]] == [f"0000000{n}_{train.labels[n]}/0000{n}" for n in (0, 1)]
    assert np.array_equal(parse_datum(entries[1][1])[0], train.images[1])


def test_reading_leaves_no_trace(databases):
    before = sorted(path.name for path in databases.rglob("*"))
    read_lmdb(databases, PLAIN)
    assert (
        sorted(path.name for path in databases.rglob("*"))
        == before
        == sorted([*["data.mdb"] * 3, "test", "train", "val"])
    )


def test_caffes_usual_names_are_known(databases):
    (databases / "train").rename(databases / "train_lmdb")
    assert len(read_lmdb(databases, PLAIN).splits[0]) == 21
    write_lmdb(databases / "train", small_faces().train)
    assert "train and train_lmdb are both train" in fault(databases)


def test_a_database_of_other_software_is_told(databases):
    put(databases / "val", foreign=b'{"image": "0.png"}')
    assert "val key foreign: not a Caffe Datum" in fault(databases)
    read = read_lmdb(databases, SKIPPING)
    assert read.left_out == ("val key foreign: not a Caffe Datum",)
    assert len(read.splits[1]) == 14


@pytest.mark.parametrize("keep", [0, 5000, 20_000])
def test_a_database_cut_short_is_refused_and_not_a_crash(databases, keep):
    data = databases / "test" / "data.mdb"
    data.write_bytes(data.read_bytes()[:keep])
    assert str(databases / "test") in fault(databases)


def test_a_file_that_is_no_database_is_refused(databases):
    (databases / "test" / "data.mdb").write_bytes(b"not a database" * 5000)
    assert "not an LMDB, damaged, or not readable" in fault(databases)


def test_damaged_pages_are_told(databases):
    data = databases / "train" / "data.mdb"
    whole = data.read_bytes()
    data.write_bytes(whole[:8192] + bytes(len(whole) - 8192))  # both pages that describe it, and zeros
    assert "a database is damaged" in fault(databases)


def test_one_database_alone_is_refused(databases):
    assert "one LMDB, expected one per split: give the folder that holds train" in fault(databases / "train")
