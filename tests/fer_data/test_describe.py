import dataclasses
import warnings

import numpy as np
import pytest
from matplotlib import image as pictures

from fer_data import DataError, Faces, Split
from fer_data.describe import describe, remarks
from fer_data.overview import draw_overview
from tests.fer_data.image_trees import small_faces


@pytest.fixture
def doubled() -> Faces:
    """train: pictures 1 2 2 0; val: 2 (other label) 3; test: 1 3 9. Picture n is filled with n; 0 is not more blank."""
    gradient = np.arange(64, dtype=np.uint8).reshape(8, 8)

    def split(name: str, pictures_and_labels: list[tuple[int, int]]) -> Split:
        images = np.stack([gradient + 100 * (n > 0) + n for n, _ in pictures_and_labels]).astype(np.uint8)
        return Split(name, images, np.array([label for _, label in pictures_and_labels], np.uint8))

    return Faces(
        "doubled",
        "0123456789abcdef",
        ("cats", "dogs"),
        split("train", [(1, 0), (2, 0), (2, 0), (0, 1)]),
        split("val", [(2, 1), (3, 1)]),
        split("test", [(1, 0), (3, 1), (9, 1)]),
        synthetic=False,
    )


def test_counts_what_stands_where(doubled):
    found = describe(doubled)
    expected = {
        "rows": 9,
        "counts": {"train": {"cats": 3, "dogs": 1}, "val": {"cats": 0, "dogs": 2}, "test": {"cats": 1, "dogs": 2}},
        "distinct_images": 5,
        "duplicates": {"train": 1, "val": 0, "test": 0},
        "val_in_train": 1,
        "val_in_train_other_label": 1,
        "test_in_train": 1,
        "test_in_train_or_val": 2,
        "label_conflict_groups": 1,
        "blank_images": 0,
        "fingerprint": "0123456789abcdef",
    }
    assert {key: found[key] for key in expected} == expected


def test_says_it_in_words(doubled):
    text = "\n".join(remarks(describe(doubled)))
    assert "9 images of 8×8, 5 of them distinct; copies within a split: train 1, val 0, test 0" in text
    assert "val images that are also in train: 1 (50.0 %), 1 of them only under another label" in text
    assert "in train or val: 2 (66.7 %)" in text


@pytest.mark.parametrize("names", [("高兴", "中性 表情"), ("$\\foo$", "$a$")])
def test_names_in_other_scripts_and_dollar_signs_are_no_boxes_nor_faults(tmp_path, doubled, names):
    path, plain = tmp_path / "overview.png", tmp_path / "plain.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_overview(path, dataclasses.replace(doubled, classes=names, name=f"{names[0]} faces"))
    if not names[0].isascii():
        draw_overview(plain, dataclasses.replace(doubled, classes=("class 0", "class 1"), name="?? faces"))
        assert path.read_bytes() == plain.read_bytes()


def test_the_picture_shows_all_classes(tmp_path, doubled):
    path = tmp_path / "overview.png"
    draw_overview(path, doubled)
    two = pictures.imread(path)
    draw_overview(path, small_faces())
    seven = pictures.imread(path)
    assert two.shape[1] == seven.shape[1] == 1200
    assert two.shape[0] < seven.shape[0]
    faces = seven[480:1180, 100:1180, 0]  # where the sheet is, a row a class
    rows = [row.std() for row in np.array_split(faces, 7)]
    assert min(rows) > 0.1
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_of_very_many_classes_has_an_end(tmp_path):
    faces = small_faces(tuple(f"a class with quite a long name {n}" for n in range(40)))
    draw_overview(tmp_path / "many.png", faces)
    assert pictures.imread(tmp_path / "many.png").shape[0] < 2200


def test_a_class_without_train_images_is_drawn_empty(tmp_path, doubled):
    without = dataclasses.replace(doubled, classes=("cats", "dogs", "horses"))
    draw_overview(tmp_path / "picture.png", without)
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_picture_that_cannot_be_written_is_told(tmp_path, doubled):
    with pytest.raises(DataError, match="the picture cannot be written"):
        draw_overview(tmp_path / "nowhere" / "picture.png", doubled)
