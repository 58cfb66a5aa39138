import os
import re
from pathlib import Path

import numpy as np
import pytest

from fer_data import EXPRESSIONS, DataError
from fer_data.options import DataOptions
from fer_data.sources.folders import read_folders
from tests.fer_data.image_trees import EXPRESSION_FOLDERS, PLAIN, SKIPPING, grey, save, two_classes, write_tree


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


def numbered(root: Path, numbers: range, written: str | None = None) -> Path:
    """Folders that are called by these numbers, each with one image of that level per split."""
    files = {f"{split}/{number}/a.png": number for split in ("train", "val", "test") for number in numbers}
    write_tree(root, files)
    if written:
        (root / "classes.txt").write_text(written)
    return root


def test_numbers_0_to_6_are_read_in_fers_order_and_that_is_said(tmp_path):
    read = read_folders(numbered(tmp_path, range(7)), PLAIN)
    assert read.classes == EXPRESSIONS
    assert read.splits[0].labels.tolist() == list(range(7))
    (note,) = read.notes
    assert "read in FER2013's order (0 Angry, 1 Disgust, 2 Fear, 3 Happy, 4 Sad, 5 Surprise, 6 Neutral)" in note
    assert "write classes.txt into its folder, one name per line in the order of the numbers" in note


def test_other_numbers_are_names_and_that_is_said(tmp_path):
    read = read_folders(numbered(tmp_path, range(1, 8)), PLAIN)
    assert read.classes == tuple("1234567")
    assert "they are called by their numbers; to name them, write classes.txt" in read.notes[0]


@pytest.mark.parametrize("numbers", [range(7), range(1, 8), range(0, 14, 2)])
def test_numbered_folders_are_named_in_their_order_by_classes_txt(tmp_path, numbers):
    names = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger")
    read = read_folders(numbered(tmp_path, numbers, "\n".join(names)), PLAIN)
    assert read.classes == names
    assert [levels(split) for split in read.splits] == [list(numbers)] * 3
    assert read.splits[0].labels.tolist() == list(range(7))


def test_class_names_that_do_not_fit_the_numbers_are_refused(tmp_path):
    assert "classes.txt: names 2 classes, which are 0..1; found 1, 2, 3: write one line per number" in fault(
        numbered(tmp_path, range(1, 4), "a\nb\n")
    )


def test_contempt_and_other_names_are_classes_after_fers(tmp_path):
    names = ("Contempt", "other", "neutral", "Anger", "HAPPY")
    files = {f"{split}/{name}/a.png": n for split in ("train", "val", "test") for n, name in enumerate(names)}
    read = read_folders(write_tree(tmp_path, files), PLAIN)
    assert read.classes == ("Angry", "Happy", "Neutral", "Contempt", "other")
    assert [levels(split) for split in read.splits] == [[3, 4, 2, 0, 1]] * 3


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


def test_without_test_a_tenth_of_train_is_test_and_val_stays(tmp_path):
    files = {f"{split}/{name}/{n}.png": n for split in ("train", "validation") for name in "ab" for n in range(20)}
    read = read_folders(write_tree(tmp_path, files), PLAIN)
    assert [split.counts(2) for split in read.splits] == [[18, 18], [20, 20], [2, 2]]
    assert read.notes[0].startswith("no test split in the source: 4 of 40 train images are test (a tenth of each")


@pytest.mark.parametrize("above", ["", "train/"])
def test_class_folders_alone_are_divided_as_a_csv_without_usage_is(tmp_path, above):
    files = {f"{above}{name}/{n}.png": n + 100 * k for k, name in enumerate(("anger", "contempt")) for n in range(30)}
    read, again = (read_folders(write_tree(tmp_path, files), PLAIN) for _ in range(2))
    assert read.classes == ("Angry", "Contempt")
    assert [split.counts(2) for split in read.splits] == [[24, 24], [3, 3], [3, 3]]
    assert read.notes == (
        "no val and no test split in the source: 6 of 60 train images are val and 6 are test (a tenth of each class, "
        "copies of a picture together, seed 0)",
    )
    assert [levels(split) for split in read.splits] == [levels(split) for split in again.splits]


@pytest.mark.parametrize(
    "folders", [("train_set", "val_set"), ("FER2013Train", "FER2013Test"), ("trian", "val"), ("Image", "EmoLabel")]
)
def test_folders_that_are_called_nearly_like_splits_are_no_classes(tmp_path, folders):
    files = {f"{name}{'/aligned' if name == 'Image' else ''}/{n}.png": n for name in folders for n in range(30)}
    if "Image" in folders:
        files = {name: level for name, level in files.items() if name.startswith("Image")} | {"EmoLabel/a/b.png": 0}
    assert f"'{folders[0]}' is no split" in fault(write_tree(tmp_path, files))


def test_the_folder_within_is_named_where_that_has_the_splits(tmp_path):
    two_classes(tmp_path / "images")
    assert f"'images' is no split (but it holds test, train, val: give {tmp_path}/images)" in fault(tmp_path)


def test_too_few_images_to_carve_val_from_are_named(tmp_path):
    assert "too few different train images of cats" in fault(
        write_tree(tmp_path, {f"{split}/{name}/1.png": 0 for split in ("train", "test") for name in ("cats", "dogs")})
    )


def test_mixed_sizes_are_counted_and_resize_makes_them_one(tmp_path):
    two_classes(tmp_path)
    save(tmp_path / "val" / "cats" / "3.png", grey(77, 20, 30))
    assert "images of different sizes: 8×8 (12), 30×20 (1); make them one with --resize" in fault(tmp_path)
    assert "different sizes" in fault(tmp_path, SKIPPING)
    read = read_folders(tmp_path, DataOptions(resize=16))
    assert read.notes == ("images that are not square: 1; --resize squashes them, so crop the faces first",)
    val = read.splits[1]
    assert val.images.shape == (5, 16, 16)
    assert np.all(val.images[4] == 77)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"train/a/1.png": 0, "tset/a/1.png": 0},
            "'tset' is no split; did you mean 'test'?. Expected the folder train",
        ),
        ({"angry/x/1.png": 0, "happy/x/1.png": 0}, "'angry' is no split; 'happy' is no split; no train folder"),
        ({"train/a/1.png": 0, "Training/b/1.png": 0, "test/a/1.png": 0}, "'train' and 'Training' are both train"),
        ({"train/a/1.png": 0, "test/a/1.png": 0}, "expected 2 to 256 class folders in each split, found 1: a"),
        ({"train/1.png": 0, "test/1.png": 0}, "found 0: none"),
        (
            {"train/happy/1.png": 0, "train/sda/1.png": 0, "test/happy/1.png": 0},
            "beside FER's expressions that are nearly named like one: 'sda'; did you mean 'sad'?",
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
    assert lines[-2:] == ["and 1 more", "fix this, or leave it out: --skip-bad"]
    read = read_folders(tmp_path, SKIPPING)
    assert [len(split) for split in read.splits] == [3, 3, 4]
    expected = {
        "train/cats/1.png: is empty",
        "train/cats/notes.bmp: not named .png, .jpg or .jpeg",
        "train/dogs/gone.png: broken link to nowhere.png",
        "train/dogs/more: a folder within a class folder; images must be in the class folder itself",
        "val/dogs/1.png: is the same file as val/cats/same.png, under another class",
        "test/cats/up: a folder within a class folder; images must be in the class folder itself",
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
    lines = fault(tmp_path, SKIPPING).splitlines()
    assert lines[0] == f"{tmp_path}: no test images, found train, val"
    assert f"{tmp_path}: test/cats/1.png: neither PNG nor JPEG by its content" in lines


def test_where_everything_was_left_out_the_reasons_are_kept(tmp_path):
    for path in two_classes(tmp_path).glob("*/*/*.png"):
        path.rename(path.with_suffix(".webp"))
    lines = fault(tmp_path, SKIPPING).splitlines()
    assert lines[0] == f"{tmp_path}: no images to read"
    assert f"{tmp_path}: test/cats/1.webp: not named .png, .jpg or .jpeg" in lines
    assert lines[-1].startswith("and ")


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "__MACOSX").mkdir()
    for folder in (tmp_path, tmp_path / "train", tmp_path / "train" / "cats"):
        for name in ("@eaDir", "#recycle", "@Recycle", "lost+found", "System Volume Information"):
            (folder / name).mkdir()
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
