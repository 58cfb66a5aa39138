import dataclasses

import numpy as np
import pytest

from fer_data import Faces, Split, open_cached, prepare
from fer_data.cache.leaks import Leaks, leaks, mark_leaks, picture_numbers
from tests.fer_data.small_faces import faces_of


def filled(name: str, content: list[tuple[int, int]]) -> Split:
    """Images by (picture, label); picture k is a gradient that begins with k, and picture 0 is black."""
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4)
    images = np.stack([ramp * (picture > 0) + np.uint8(picture) for picture, _ in content])
    return Split(name, images, np.array([label for _, label in content], np.uint8))


@pytest.fixture
def leaky() -> Faces:
    return dataclasses.replace(
        faces_of([0], 3),
        train=filled("train", [(0, 0), (1, 1), (1, 1), (2, 2), (3, 0), (3, 1)]),
        val=filled("val", [(1, 1), (2, 0), (4, 0), (4, 0), (4, 0)]),
        test=filled("test", [(2, 1), (3, 1), (4, 0), (5, 2), (0, 0)]),
    )


def test_copies_are_counted(leaky):
    assert leaks(leaky) == Leaks(
        images=16,
        distinct_images=6,
        duplicates=(2, 2, 0),
        val_in_train=2,
        val_in_train_other_label=1,
        test_in_train=3,
        test_in_train_other_label=1,
        test_in_train_or_val=4,
        label_conflict_groups=2,  # pictures 2 and 3
        blank_images=2,
    )


def test_leaks_are_marked(leaky):
    marked = mark_leaks(leaky)
    assert marked.train.leaked is None
    assert marked.val.leaked.tolist() == [True, True, False, False, False]
    assert marked.test.leaked.tolist() == [True, True, True, False, True]


def test_every_pixel_counts():
    images = np.zeros((17, 4, 4), np.uint8)
    images[np.arange(16), np.arange(16) // 4, np.arange(16) % 4] = 1
    (numbers,) = picture_numbers(images)
    assert numbers.tolist() == list(range(17))
    (numbers,) = picture_numbers(images[:, ::-1])
    assert numbers.tolist() == list(range(17))


def test_marks_stand_in_the_cache(write_csv, good_rows):
    copies = [good_rows[0].replace("Training", usage) for usage in ("PublicTest", "PrivateTest")]
    faces = open_cached(prepare(write_csv([*good_rows, *copies])))
    assert faces.train.leaked is None
    assert faces.val.leaked.tolist() == [False, False, True]
    assert faces.test.leaked.tolist() == [False, True]


@pytest.mark.slow
def test_the_official_data_has_the_leaks_that_are_known(official_csv):
    faces = open_cached(prepare(official_csv))
    found = leaks(faces)
    assert found == Leaks(
        images=35887,
        distinct_images=34034,
        duplicates=found.duplicates,
        val_in_train=280,
        val_in_train_other_label=7,
        test_in_train=288,
        test_in_train_other_label=9,
        test_in_train_or_val=314,
        label_conflict_groups=57,
        blank_images=12,
    )
    assert int(faces.val.leaked.sum()) == 280
    assert int(faces.test.leaked.sum()) == 314
    black = [np.count_nonzero(split.images.max(axis=(1, 2)) == 0) for split in (faces.train, faces.val, faces.test)]
    assert sum(black) == 12  # all blank images are black
