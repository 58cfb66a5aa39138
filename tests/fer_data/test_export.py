import dataclasses

import numpy as np
import pytest
from PIL import Image

import fer_data
from fer_data import DataError
from fer_data import export as export_module
from fer_data.export import export
from fer_data.sources.folders import read_folders
from tests.fer_data.image_trees import PLAIN, same_pixels, small_faces


def reread(folder) -> fer_data.Faces:
    return fer_data.open_cached(fer_data.prepare(folder))


@pytest.mark.parametrize("form", ["png", "lmdb"])
@pytest.mark.parametrize("classes", [fer_data.EXPRESSIONS, ("cats", "dogs"), tuple(f"class {n}" for n in range(12))])
def test_an_export_reads_back_as_the_same_faces(tmp_path, form, classes):
    faces = small_faces(classes)
    export(faces, tmp_path / "out", form)
    back = reread(tmp_path / "out")
    assert back.classes == classes
    assert same_pixels(back, faces)
    if classes == fer_data.EXPRESSIONS:
        assert back.fingerprint == faces.fingerprint


def test_folders_alone_give_the_same_order_as_the_lists(tmp_path):
    faces = small_faces()
    export(faces, tmp_path / "out", "png")
    train = read_folders(tmp_path / "out", PLAIN).splits[0]
    assert np.array_equal(train.images, faces.train.images)


def test_the_layout_is_the_one_that_caffes_tools_take(tmp_path):
    faces, out = small_faces(), tmp_path / "out"
    export(faces, out, "png")
    label = faces.train.labels[20]
    assert (out / "train.txt").read_text().splitlines()[20] == f"{label}/00020.png {label}"
    with Image.open(out / "train" / str(label) / "00020.png") as image:
        assert (image.mode, image.size) == ("L", (48, 48))
    assert (out / "classes.txt").read_text().splitlines() == list(fer_data.EXPRESSIONS)
    assert np.allclose(np.load(out / "mean.npy"), faces.train.images.mean(axis=0), atol=1e-4)
    assert np.array_equal(
        np.frombuffer((out / "mean.binaryproto").read_bytes()[-4 * 2304 :], "<f4").reshape(48, 48),
        np.load(out / "mean.npy"),
    )


def test_jpg_keeps_the_faces_nearly(tmp_path):
    faces = small_faces()
    export(faces, tmp_path / "out", "jpg")
    back = reread(tmp_path / "out")
    assert np.array_equal(back.train.labels, faces.train.labels)
    difference = np.abs(back.train.images.astype(int) - faces.train.images)
    assert 0 < difference.mean() < 3


@pytest.mark.parametrize("make", ["mkdir", "touch"])
def test_an_existing_destination_is_left_alone(tmp_path, make):
    getattr(tmp_path / "out", make)()
    with pytest.raises(DataError, match="exists already"):
        export(small_faces(), tmp_path / "out", "png")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "write_class_names", refuse)
    with pytest.raises(DataError, match=r"out: cannot be written: .*No space left"):
        export(small_faces(), tmp_path / "out", "png")
    assert list(tmp_path.iterdir()) == []


def test_soft_labels_are_not_dropped_silently(tmp_path):
    faces = small_faces()
    soft = dataclasses.replace(faces.train, soft_labels=np.full((21, 7), 1 / 7, np.float32))
    with pytest.raises(DataError, match="soft labels"):
        export(dataclasses.replace(faces, train=soft), tmp_path / "out", "png")
