import os
import re
from pathlib import Path

import numpy as np
import pytest
from image_trees import EXPRESSION_FOLDERS, PLAIN, SKIPPING, grey, save, two_classes, write_tree

from fer_data import EXPRESSIONS, DataError
from fer_data.folders import read_folders
from fer_data.options import DataOptions


def fault(root: Path, options: DataOptions = PLAIN) -> str:
    with pytest.raises(DataError) as raised:
        read_folders(root, options)
    return str(raised.value)


def levels(split) -> list[int]:
    return split.images[:, 0, 0].tolist()


@pytest.mark.parametrize(
    "spellings",
    [
        EXPRESSION_FOLDERS,
        EXPRESSIONS,
        ("anger", "DISGUST", "Fear", "happiness", "sadness", "Surprise", "neutral"),
        ("0", "1", "2", "3", "4", "5", "6"),
    ],
)
@pytest.mark.parametrize(
    "splits", [("train", "val", "test"), ("Training", "PublicTest", "PrivateTest"), ("train", "validation", "private")]
)
def test_usual_spellings_become_fers_classes_and_splits(tmp_path, splits, spellings):
    files = {f"{split}/{name}/a.png": 10 * s + c for s, split in enumerate(splits) for c, name in enumerate(spellings)}
    read = read_folders(write_tree(tmp_path / "faces", files), PLAIN)
    assert (read.name, read.classes, read.notes, read.left_out) == ("faces", EXPRESSIONS, (), ())
    assert [split.name for split in read.splits] == ["train", "val", "test"]
    assert [levels(split) for split in read.splits] == [[10 * s + c for c in range(7)] for s in range(3)]
    assert all(split.labels.tolist() == list(range(7)) for split in read.splits)


def test_a_part_of_the_expressions_keeps_fers_order(tmp_path):
    files = {f"{split}/{name}/a.png": 0 for split in ("train", "val", "test") for name in ("sad", "happy")}
    read = read_folders(write_tree(tmp_path, files), PLAIN)
    assert read.classes == ("Happy", "Sad")


def test_names_of_ones_own_are_classes_in_natural_order(tmp_path):
    names = ("stage10", "stage2", "ärger")
    files = {f"{split}/{name}/a.png": 0 for split in ("train", "val", "test") for name in names}
    assert read_folders(write_tree(tmp_path, files), PLAIN).classes == ("stage2", "stage10", "ärger")


def test_images_stand_in_the_natural_order_of_their_names_over_all_classes(tmp_path):
    names = ("cats/face10.png", "dogs/face9.png", "cats/face2.png", "dogs/face2.png")
    files = {f"{split}/{name}": level for split in ("train", "val", "test") for level, name in enumerate(names)}
    train = read_folders(write_tree(tmp_path, files), PLAIN).splits[0]
    assert levels(train) == [2, 3, 1, 0]
    assert train.labels.tolist() == [0, 1, 1, 0]


def test_kaggles_folder_form_is_divided_by_its_file_names(tmp_path):
    files = {}
    for number, name in enumerate(EXPRESSION_FOLDERS):
        files[f"train/{name}/Training_{number}.jpg"] = number
        files[f"test/{name}/PublicTest_{number}.jpg"] = 100 + number
        files[f"test/{name}/PrivateTest_{number}.jpg"] = 200 + number
    read = read_folders(write_tree(tmp_path, files), PLAIN)
    assert [levels(split) for split in read.splits] == [[first + n for n in range(7)] for first in (0, 100, 200)]
    assert read.notes == ("the test folder is divided by its file names: 7 PublicTest are val, 7 PrivateTest are test",)


def test_without_val_a_tenth_of_each_train_class_is_val_and_copies_stay_together(tmp_path):
    files = {f"test/{name}/x.png": 250 for name in ("cats", "dogs")}
    files |= {f"train/cats/{n}.png": n // 2 for n in range(100)}  # 50 pictures, each twice
    files |= {f"train/dogs/{n}.png": 100 + n for n in range(40)}
    write_tree(tmp_path, files)
    read, again = read_folders(tmp_path, PLAIN), read_folders(tmp_path, PLAIN)
    train, val, _ = read.splits
    assert (train.counts(2), val.counts(2)) == ([90, 36], [10, 4])
    assert not set(levels(train)) & set(levels(val))
    assert levels(val) == levels(again.splits[1])
    assert re.search(r"no val split.*14 of 140 train images are val", read.notes[0])


def test_too_few_images_to_carve_val_from_are_named(tmp_path):
    assert "too few different train images of cats" in fault(
        write_tree(tmp_path, {f"{split}/{name}/1.png": 0 for split in ("train", "test") for name in ("cats", "dogs")})
    )


def test_mixed_sizes_are_counted_and_resize_makes_them_one(tmp_path):
    two_classes(tmp_path)
    save(tmp_path / "val" / "cats" / "3.png", grey(77, 20, 30))
    assert "images of different sizes: 8×8 (12), 30×20 (1); make them one with --resize" in fault(tmp_path)
    assert "different sizes" in fault(tmp_path, SKIPPING)
    val = read_folders(tmp_path, DataOptions(resize=16)).splits[1]
    assert val.images.shape == (5, 16, 16)
    assert np.all(val.images[4] == 77)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"train/a/1.png": 0, "tset/a/1.png": 0}, "'tset' is no split, did you mean 'test'?; no test folder"),
        ({"angry/1.png": 0, "happy/1.png": 0}, "'angry' is no split; 'happy' is no split; no train folder"),
        ({"train/a/1.png": 0, "Training/b/1.png": 0, "test/a/1.png": 0}, "'train' and 'Training' are both train"),
        ({"train/a/1.png": 0, "test/a/1.png": 0}, "expected 2 to 256 class folders in each split, found 1: a"),
        ({"train/1.png": 0, "test/1.png": 0}, "found 0: none"),
        (
            {"train/happy/1.png": 0, "train/sda/1.png": 0, "test/happy/1.png": 0},
            "the class folders happy are FER's expressions, but 'sda' is none, did you mean 'sad'?",
        ),
    ],
)
def test_folders_that_fit_nothing_are_named(tmp_path, files, says):
    text = fault(write_tree(tmp_path, files))
    assert text.startswith(f"{tmp_path}: ")
    assert says in text


def test_two_folders_for_one_class_are_refused(tmp_path):
    files = {f"{split}/{name}/1.png": 0 for split in ("train", "val", "test") for name in ("angry", "Anger", "sad")}
    assert "train: the folders angry and Anger are both Angry" in fault(write_tree(tmp_path, files)).replace(
        "Anger and angry", "angry and Anger"
    )


def spoil(root: Path) -> None:
    """One fault of each kind that can be left out."""
    (root / "train" / "cats" / "1.png").write_bytes(b"")
    (root / "train" / "cats" / "notes.bmp").touch()
    (root / "train" / "dogs" / "more").mkdir()
    (root / "train" / "dogs" / "gone.png").symlink_to("nowhere.png")
    (root / "val" / "cats" / "same.png").hardlink_to(root / "val" / "dogs" / "1.png")
    (root / "test" / "cats" / "up").symlink_to(root, target_is_directory=True)


def test_all_faults_are_told_at_once_and_left_out_on_request(tmp_path):
    spoil(two_classes(tmp_path))
    lines = fault(tmp_path).splitlines()
    assert len([line for line in lines if line.startswith(f"{tmp_path}: ")]) == 5
    assert lines[-2:] == ["and 1 more", "mend this, or go on without it: --skip-bad"]
    read = read_folders(tmp_path, SKIPPING)
    assert [len(split) for split in read.splits] == [3, 3, 4]
    expected = {
        "train/cats/1.png: is empty",
        "train/cats/notes.bmp: not named .png, .jpg or .jpeg",
        "train/dogs/gone.png: broken link to nowhere.png",
        "train/dogs/more: a folder within a class folder; images stand in the class folder itself",
        "val/dogs/1.png: is the same file as val/cats/same.png, under another class",
        "test/cats/up: a folder within a class folder; images stand in the class folder itself",
    }
    assert set(read.left_out) == expected


@pytest.mark.parametrize("remove_folder", [False, True])
def test_a_class_without_images_is_named(tmp_path, remove_folder):
    two_classes(tmp_path)
    for path in (tmp_path / "val" / "dogs").iterdir():
        path.unlink()
    if remove_folder:
        (tmp_path / "val" / "dogs").rmdir()
    says = "val: no folder for the class dogs" if remove_folder else "val/dogs: no images"
    assert says in fault(tmp_path)
    assert read_folders(tmp_path, SKIPPING).left_out == (says,)


def test_a_split_whose_images_are_all_faulty_is_missing(tmp_path):
    for path in two_classes(tmp_path).glob("test/*/*.png"):
        path.write_bytes(b"no image")
    assert "no test images, found train, val" in fault(tmp_path, SKIPPING)


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "cats" / "Thumbs.db").touch()
    (tmp_path / "train" / "cats" / ".DS_Store").touch()
    assert [len(split) for split in read_folders(tmp_path, PLAIN).splits] == [4, 4, 4]


def test_links_are_followed_out_of_the_folder(tmp_path):
    away = two_classes(tmp_path / "away")
    root = tmp_path / "linked"
    root.mkdir()
    for split in ("train", "val"):
        (root / split).symlink_to(away / split, target_is_directory=True)
    for path in away.glob("test/*/*.png"):
        link = root / path.relative_to(away)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    for linked, plain in zip(read_folders(root, PLAIN).splits, read_folders(away, PLAIN).splits, strict=True):
        assert np.array_equal(linked.images, plain.images)


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    root = two_classes(tmp_path / "pets")
    (root / "val" / "cats" / "1.png").chmod(0)
    (root / "val" / "dogs").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # nobody may not come here from above
    user = os.geteuid()
    if user == 0:  # root may read everything: be nobody for a moment
        os.seteuid(65534)
    try:
        text = fault(Path("pets"))
    finally:
        os.seteuid(user)
        (root / "val" / "dogs").chmod(0o755)
    assert "val/cats/1.png: cannot be read: Permission denied" in text
    assert "val/dogs: cannot be read: Permission denied" in text


def test_a_name_that_is_no_utf8_can_be_told(tmp_path):
    two_classes(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/train/cats/\xff.png")).write_bytes(b"x")
    assert r"train/cats/\xff.png: neither PNG nor JPEG" in fault(tmp_path)
