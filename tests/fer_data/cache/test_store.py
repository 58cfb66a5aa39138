import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fer_data
from fer_data import DataError, DataOptions
from fer_data.cache import store
from fer_data.cache.preprocess_cache import preprocessed
from fer_data.export import export

pytestmark = pytest.mark.timeout(120)


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(options: DataOptions) -> None:
        raise AssertionError(f"{options.source} was read again")

    monkeypatch.setattr(store, "read_source", refuse)


def test_a_csv_comes_back_as_it_was(write_csv, good_rows, cache):
    path = write_csv(good_rows, name="mine.csv")
    folder = fer_data.prepare(path)
    faces = fer_data.open_cached(folder)
    assert folder == cache / faces.fingerprint
    assert (faces.name, faces.synthetic, faces.classes) == ("mine", False, fer_data.EXPRESSIONS)
    assert "class counts differ from the official FER2013" in faces.notes[0]
    assert [split.labels.tolist() for split in (faces.train, faces.val, faces.test)] == [[0, 6, 3], [1, 2], [5]]
    assert faces.val.images[:, 0, 0].tolist() == [30, 40]
    expected = (0 + 10 + np.arange(2304).reshape(48, 48) % 256) / 3
    assert np.allclose(faces.mean_image(), expected, atol=1e-4)


def test_images_are_memory_mapped_and_read_only(write_csv, good_rows):
    faces = fer_data.open_cached(fer_data.prepare(write_csv(good_rows)))
    assert isinstance(faces.train.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        faces.train.images[0] = 0


def test_a_source_is_converted_once(write_csv, good_rows, monkeypatch):
    path = write_csv(good_rows)
    folder = fer_data.prepare(str(path))
    forbid_reading(monkeypatch)
    link = path.with_name("link")
    link.symlink_to(path.parent)
    assert fer_data.prepare(path) == fer_data.prepare(link / path.name) == folder


def test_a_changed_source_is_read_again(write_csv, good_rows):
    path = write_csv(good_rows)
    first = fer_data.prepare(path)
    path.write_text(path.read_text().replace("3,0 1 2", "4,0 1 2"))  # same size
    os.utime(path, ns=(1, 1))
    second = fer_data.prepare(path)
    assert first != second
    assert fer_data.open_cached(second).train.labels.tolist() == [0, 6, 4]
    assert fer_data.open_cached(first).train.labels.tolist() == [0, 6, 3]


def test_the_same_content_under_another_name_shares_the_copy_and_keeps_its_name(write_csv, good_rows, tmp_path):
    one, two = write_csv(good_rows, name="one.csv"), write_csv(good_rows, newline="\r\n", name="two.csv")
    link = tmp_path / "three.csv"
    link.symlink_to(one)
    folders = [fer_data.prepare(path) for path in (one, two, link, one, two)]
    faces = [fer_data.open_cached(folder) for folder in folders]
    assert [found.name for found in faces] == ["one", "two", "three", "one", "two"]
    assert len({found.fingerprint for found in faces}) == 1
    assert len({(folder / "train_images.npy").stat().st_ino for folder in folders}) == 1


def test_a_view_and_a_preprocessing_keep_the_name_of_their_source(write_csv):
    usages = ("Training", "PublicTest", "PrivateTest")
    rows = [f"{k % 7},{' '.join([str(k)] * 2304)},{usage}" for usage in usages for k in range(28)]
    one, two = write_csv(rows, name="one.csv"), write_csv(rows, name="two.csv")
    for path in (one, two):
        folder = fer_data.prepare(DataOptions(source=str(path), limit_train=14))
        made = preprocessed(folder, "mean_image")
        names = [fer_data.open_cached(each).name for each in (folder, made)]
        assert names == [path.stem] * 2
    assert fer_data.open_cached(made).notes[-2:] == (
        "trained on 14 of 28 train images (stratified, seed 0)",
        "preprocessed: mean_image",
    )


@pytest.mark.long
def test_synthetic_faces_stay_synthetic_after_their_export_was_read(tmp_path, cache):
    folder = fer_data.prepare(None)
    exported = tmp_path / "exported"
    export(fer_data.open_cached(folder), exported, "png")
    shutil.rmtree(cache)
    read = fer_data.open_cached(fer_data.prepare(exported))
    drawn = fer_data.open_cached(fer_data.prepare(None))
    assert (read.name, read.synthetic) == ("exported", False)
    assert (drawn.name, drawn.synthetic) == ("synthetic faces", True)
    assert drawn.fingerprint == read.fingerprint


def test_a_record_of_an_older_version_is_made_anew_and_its_copy_kept(write_csv, good_rows, cache):
    path = write_csv(good_rows)
    folder = fer_data.prepare(path)
    inode = (folder / "train_images.npy").stat().st_ino
    (record,) = (cache / "sources").glob("*.json")
    old = json.loads(record.read_text())
    record.write_text(json.dumps({"wanted": old["wanted"], "origin": old["origin"], "fingerprint": old["folder"]}))
    assert fer_data.prepare(path) == folder
    assert (folder / "train_images.npy").stat().st_ino == inode
    assert json.loads(record.read_text()) == old


def test_a_file_name_need_not_be_utf8(write_csv, good_rows, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff.csv")
    write_csv(good_rows).rename(odd)
    assert fer_data.open_cached(fer_data.prepare(odd)).train.labels.tolist() == [0, 6, 3]


def test_a_bad_source_leaves_nothing_behind(write_csv, good_rows, cache):
    with pytest.raises(DataError, match="emotion 9"):
        fer_data.prepare(write_csv([*good_rows, good_rows[0].replace("0,", "9,", 1)]))
    assert contents(cache) == set()


@pytest.mark.parametrize("wrong", ["fer2013.csv", "synthetics"])
def test_a_missing_source_is_never_replaced_by_synthetic_faces(wrong):
    with pytest.raises(DataError, match=f"{wrong}: no such file"):
        fer_data.prepare(wrong)


@pytest.mark.parametrize("name", ["train_images.npy", "val_labels.npy", "mean_image.npy", "meta.json"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_copy_is_refused_and_made_anew(write_csv, good_rows, name, keep):
    path = write_csv(good_rows)
    folder = fer_data.prepare(path)
    damaged = folder / name
    damaged.write_bytes(damaged.read_bytes()[: int(keep * damaged.stat().st_size)])
    with pytest.raises(DataError, match=f"{folder}: .*; prepare the source again"):
        fer_data.open_cached(folder)
    assert fer_data.prepare(path) == folder
    assert fer_data.open_cached(folder).train.labels.tolist() == [0, 6, 3]
    assert all(entry.name in {folder.name, "sources"} for entry in folder.parent.iterdir())


def test_a_copy_with_a_file_of_another_split_is_refused(write_csv, good_rows):
    folder = fer_data.prepare(write_csv(good_rows))
    (folder / "val_images.npy").replace(folder / "train_images.npy")
    with pytest.raises(DataError, match=r"damaged cache|missing"):
        fer_data.open_cached(folder)


def test_a_copy_of_an_older_version_is_made_anew(write_csv, good_rows):
    path = write_csv(good_rows)
    folder = fer_data.prepare(path)
    meta = folder / "meta.json"
    meta.write_text(meta.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(DataError, match="not a cache of faces of this version"):
        fer_data.open_cached(folder)
    assert fer_data.prepare(path) == folder
    assert fer_data.open_cached(folder).train.labels.tolist() == [0, 6, 3]


def test_options_that_change_the_content_are_other_data_sets(write_csv, good_rows, monkeypatch):
    path = str(write_csv(good_rows))
    plain, small = fer_data.prepare(path), fer_data.prepare(DataOptions(source=path, resize=24))
    assert plain != small
    assert fer_data.prepare(DataOptions(source=path, skip_bad=True)) == plain
    forbid_reading(monkeypatch)
    assert fer_data.prepare(path) == plain
    assert fer_data.prepare(DataOptions(source=path, resize=24)) == small


def test_a_foreign_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"not a cache of faces: meta.json missing"):
        fer_data.open_cached(tmp_path)
    (tmp_path / "meta.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="not a cache of faces of this version"):
        fer_data.open_cached(tmp_path)


def test_pickles_in_a_copy_are_not_loaded(write_csv, good_rows, tmp_path):
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trace"),)

    folder = fer_data.prepare(write_csv(good_rows))
    np.save(folder / "train_labels.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="damaged cache"):
        fer_data.open_cached(folder)
    assert not (tmp_path / "trace").exists()


def test_a_cache_that_cannot_be_written_is_named(write_csv, good_rows, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write the cache of faces: .*/file.*; set FER_CACHE"):
        fer_data.prepare(write_csv(good_rows))


def test_the_cache_is_in_the_home_folder_by_default(write_csv, good_rows, tmp_path, monkeypatch):
    monkeypatch.delenv("FER_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert fer_data.prepare(write_csv(good_rows)).parent == tmp_path / "home" / ".cache" / "fer-sweeps"


@pytest.mark.parametrize("damage_first", [False, True])
def test_processes_that_convert_at_once_agree(write_csv, good_rows, cache, damage_first):
    path = write_csv(good_rows)
    if damage_first:
        (fer_data.prepare(path) / "train_images.npy").unlink()
    program = (
        "import sys; from fer_data import *; f = prepare(DataOptions(source=sys.argv[1])); open_cached(f); print(f)"
    )
    command = [sys.executable, "-c", program, str(path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    folders = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * 4
    (folder,) = folders
    assert {entry.name for entry in cache.iterdir()} == {Path(folder).name, "sources"}


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, fer_data; fer_data.AugmentConfig(flip=0.5)\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'matplotlib', 'mlflow', 'sklearn', 'scipy'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
