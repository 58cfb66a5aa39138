import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fer_data import DataError, DataOptions, open_cached, prepare
from fer_data.sources import compressed


@pytest.fixture
def content(write_csv, good_rows) -> bytes:
    return write_csv(good_rows).read_bytes()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def as_kaggle(data: bytes) -> bytes:
    """fer2013.tar.gz as the challenge gives it, with what macOS adds."""
    names = {"fer2013/README": b"x", "fer2013/._fer2013.csv": b"\0", "fer2013/fer2013.csv": data, "fer2013/a.bib": b"@"}
    return gzip.compress(tarred(names))


PACK = {"gzip": gzip.compress, "xz": lzma.compress, "zip": lambda data: zipped({"a.csv": data})}


def in_file(folder: Path, data: bytes, name: str = "packed.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def message(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        prepare(path)
    return str(raised.value)


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lambda data: gzip.compress(data[:9000]) + gzip.compress(data[9000:]),
        lzma.compress,
        lambda data: lzma.compress(data[:9000]) + lzma.compress(data[9000:]) + bytes(8),
        lambda data: zipped({"fer2013.csv": data, "readme": b"hello"}),
        lambda data: zipped({"a/fer2013.CSV": data, "__MACOSX/a/._fer2013.csv": b""}, zipfile.ZIP_STORED),
        as_kaggle,
        lambda data: lzma.compress(tarred({"a.csv": data})),
        lambda data: tarred({"a.csv": data}),
        lambda data: as_kaggle(data.replace(b",", b" , ")),
    ],
    ids=[
        *("gzip", "two gzip members", "xz", "two xz streams", "zip", "stored in a folder of a zip"),
        *("Kaggle's tar.gz", "tar.xz", "tar", "an untidy csv in a tar.gz"),
    ],
)
def test_archives_are_recognised_by_their_content(tmp_path, cache, content, pack):
    plain, packed = prepare(in_file(tmp_path, content, "odd.csv")), in_file(tmp_path, pack(content), "odd")
    assert prepare(packed) == plain
    assert open_cached(plain).train.labels.tolist() == [0, 6, 3]
    assert {entry.name for entry in cache.iterdir()} == {plain.name, "sources"}


@pytest.mark.parametrize("name", ["mine.csv.gz", "mine.csv", "mine.gz", "mine.tar.gz", "mine.tgz"])
def test_the_name_of_the_data_is_that_of_the_file(tmp_path, content, name):
    assert open_cached(prepare(in_file(tmp_path, gzip.compress(content), name))).name == "mine"


def test_a_packed_file_that_is_untidy_is_read_carefully(tmp_path, content):
    packed = in_file(tmp_path, gzip.compress(content.replace(b",", b" , ")))
    assert open_cached(prepare(packed)).train.labels.tolist() == [0, 6, 3]


def test_faults_are_named_in_the_archive(tmp_path, content):
    bad = content.replace(b"0,", b"9,", 1)
    packed, in_zip = in_file(tmp_path, gzip.compress(bad)), in_file(tmp_path, zipped({"a.csv": bad}), "a.zip")
    assert message(packed).splitlines()[0] == f"{packed}:2: emotion 9, expected 0..6"
    assert message(in_zip).splitlines()[0] == f"{in_zip}/a.csv:2: emotion 9, expected 0..6"


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.95])
def test_a_truncated_archive_is_named(tmp_path, cache, kind, keep):
    data = b"emotion,pixels,Usage\n" + np.random.default_rng(0).bytes(20_000)
    packed = PACK[kind](data)
    path = in_file(tmp_path, packed[: int(keep * len(packed))])
    assert message(path).startswith(f"{path}: truncated or damaged {kind} archive: ")
    assert [entry.name for entry in cache.iterdir()] == ["sources"]


@pytest.mark.parametrize("kind", PACK)
def test_a_damaged_archive_is_named(tmp_path, kind):
    data = b"emotion,pixels,Usage\n" + np.random.default_rng(0).bytes(20_000)
    packed = bytearray(PACK[kind](data))
    packed[len(packed) // 2] ^= 0xFF
    assert f"truncated or damaged {kind} archive" in message(in_file(tmp_path, bytes(packed)))


def test_a_zip_holds_exactly_one_csv(tmp_path):
    several, none = zipped({"train.csv": b"a", "test.csv": b"b", "c": b""}), zipped({"notes": b"a", "more": b"b"})
    assert "2 csv files in it (train.csv, test.csv); expected exactly one" in message(in_file(tmp_path, several))
    assert "no csv in it (it holds notes, more)" in message(in_file(tmp_path, none))
    assert "no csv in it (it holds nothing)" in message(in_file(tmp_path, zipped({})))


def test_a_tar_archive_holds_exactly_one_csv_and_all_of_it(tmp_path, content):
    several = in_file(tmp_path, gzip.compress(tarred({"train.csv": b"a", "test.csv": b"b"})))
    assert "2 csv files in it (train.csv, test.csv); expected exactly one" in message(several)
    short = in_file(tmp_path, gzip.compress(tarred({"fer2013.csv": content})[:9000]))
    assert "truncated or damaged tar archive: unexpected end of data; get it again" in message(short)
    bad = in_file(tmp_path, as_kaggle(content.replace(b"0,", b"9,", 1)))
    assert message(bad).startswith(f"{bad}/fer2013/fer2013.csv:2: emotion 9")


def test_an_encrypted_zip_is_named(tmp_path, content):
    data = bytearray(zipped({"a.csv": content}))
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    assert "a.csv is encrypted" in message(in_file(tmp_path, bytes(data)))


def test_a_zip_packed_by_a_rare_method_is_refused(tmp_path, content):
    assert "other than deflate" in message(in_file(tmp_path, zipped({"a.csv": content}, zipfile.ZIP_LZMA)))


def test_an_archive_in_an_archive_is_named(tmp_path, content):
    assert "it is a zip archive" in message(in_file(tmp_path, gzip.compress(zipped({"a.csv": content}))))
    assert "it is a bzip2 archive" in message(in_file(tmp_path, gzip.compress(bz2.compress(content))))


@pytest.mark.parametrize("kind", PACK)
def test_unpacking_has_a_limit(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(compressed, "MAX_BYTES", 2**20)
    bomb = in_file(tmp_path, PACK[kind](bytes(2**22)))
    assert bomb.stat().st_size < 2**14
    assert "too large: unpacks to more than" in message(bomb)


def test_an_xz_file_may_not_ask_for_gigabytes(tmp_path, content):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    greedy = bytearray(lzma.compress(content, filters=filters))
    assert "truncated or damaged xz archive: Memory usage limit" in message(in_file(tmp_path, bytes(greedy)))


def test_an_empty_file_in_an_archive_is_named(tmp_path):
    assert "is empty; expected a csv" in message(in_file(tmp_path, gzip.compress(b"")))


def test_a_missing_place_to_unpack_is_named(tmp_path, content, monkeypatch):
    monkeypatch.setenv("FER_CACHE", str(in_file(tmp_path, b"", "file")))
    assert "set FER_CACHE" in message(in_file(tmp_path, gzip.compress(content)))


@pytest.mark.slow
def test_packed_forms_of_the_official_file_are_the_official_data(official_csv, tmp_path):
    packed = in_file(tmp_path, gzip.compress(official_csv.read_bytes(), 1))
    assert open_cached(prepare(DataOptions(source=str(packed)))).name == "FER2013"
