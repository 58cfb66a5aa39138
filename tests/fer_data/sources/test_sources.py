import numpy as np
from PIL import Image

from fer_data import DataOptions, open_cached, prepare
from tests.fer_data.conftest import refusal


def write_images(root, splits=("train", "val", "test"), classes=("happy", "sad")) -> None:
    rng = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for k in range(2):
                Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / split / name / f"{k}.png")


def test_a_folder_of_images_is_read_and_found_again(tmp_path, monkeypatch):
    write_images(tmp_path / "images")
    folder = prepare(tmp_path / "images")
    faces = open_cached(folder)
    assert len(faces.classes) == 2
    assert [split.counts(2) for split in (faces.train, faces.val, faces.test)] == [[2, 2]] * 3
    assert faces.val.leaked.tolist() == [False] * 4
    monkeypatch.setattr("fer_data.cache.store.read_source", None)
    assert prepare(tmp_path / "images") == folder


def test_a_folder_in_which_anything_changed_is_read_again(tmp_path):
    write_images(tmp_path / "images")
    first = prepare(tmp_path / "images")
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "images" / "test" / "sad" / "1.png")
    second = prepare(tmp_path / "images")
    (tmp_path / "images" / "train" / "sad" / "1.png").unlink()
    third = prepare(tmp_path / "images")
    assert len({first, second, third}) == 3


def test_renamed_classes_are_another_data_set(tmp_path):
    write_images(tmp_path / "images")
    first = prepare(tmp_path / "images")
    for split in ("train", "val", "test"):
        (tmp_path / "images" / split / "sad").rename(tmp_path / "images" / split / "fear")
    second = prepare(tmp_path / "images")
    assert first != second
    assert open_cached(second).classes != open_cached(first).classes


def test_a_folder_of_tables_is_refused(tmp_path, write_csv, good_rows):
    folder = tmp_path / "data"
    folder.mkdir()
    write_csv(good_rows).rename(folder / "fer2013.csv")
    assert refusal(folder) == f"{folder}: is a folder without images; give the csv in it: fer2013.csv"


def test_folders_have_no_ferplus_labels(tmp_path):
    write_images(tmp_path)
    assert "belong to the rows of FER2013's csv" in refusal(tmp_path, labels="ferplus-majority", ferplus="votes.csv")


def test_links_in_a_circle_are_named(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert str(tmp_path / "a") in refusal(tmp_path / "a")


def test_synthetic_faces_can_be_resized(monkeypatch):
    monkeypatch.setattr("fer_data.sources.synthetic.PER_CLASS", {"train": 4, "val": 2, "test": 2})
    small, usual = (open_cached(prepare(DataOptions(resize=side))) for side in (24, None))
    assert small.synthetic
    assert (small.train.images.shape, usual.train.images.shape) == ((28, 24, 24), (28, 48, 48))
    blocks = usual.train.images.reshape(28, 24, 2, 24, 2).mean(axis=(2, 4))
    assert np.abs(small.train.images - blocks).max() <= 1  # Pillow rounds twice, across and down


def test_data_that_call_themselves_fer2013_are_not_taken_for_the_official_ones(tmp_path, write_csv, good_rows):
    write_images(tmp_path / "FER2013")
    faces = [open_cached(prepare(path)) for path in (tmp_path / "FER2013", write_csv(good_rows, name="FER2013.csv"))]
    assert [one.name for one in faces] == ["FER2013 (not official)"] * 2
