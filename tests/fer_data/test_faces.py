import dataclasses

import numpy as np
import pytest
from small_faces import faces_of, split_of

from fer_data import EXPRESSIONS, DataError, Split, limit_train
from fer_data.faces import fingerprint_of


def test_expressions_stand_in_the_order_of_the_challenge():
    assert EXPRESSIONS == ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")


def test_counts_name_absent_classes_too():
    assert split_of([0, 2, 2, 1]).counts(5) == [1, 1, 2, 0, 0]


def test_a_split_refuses_labels_that_do_not_fit():
    with pytest.raises(DataError, match=r"\(3, 4, 4\) and labels \(2,\)"):
        Split("train", np.zeros((3, 4, 4), np.uint8), np.zeros(2, np.uint8))


def test_mean_image_is_the_mean_of_train():
    mean = faces_of([0, 1, 0, 1], 2).mean_image()  # images filled with 0, 1, 2, 3
    assert mean.dtype == np.float32
    assert mean.tolist() == [[1.5] * 4] * 4


def test_fingerprint_changes_with_pixels_labels_and_order():
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    labels = np.array([0, 1], np.uint8)
    changed = images.copy()
    changed[1, 3, 3] += 1
    variants = [
        Split("train", images, labels),
        Split("val", images, labels),
        Split("train", changed, labels),
        Split("train", images, labels[::-1]),
        Split("train", images[::-1], labels),
    ]
    prints = [fingerprint_of([split]) for split in variants]
    assert len(set(prints)) == 5
    assert fingerprint_of([Split("train", images.copy(), labels.copy())]) == prints[0]
    assert all(len(text) == 16 for text in prints)


def test_limit_train_keeps_the_proportions_of_the_classes():
    faces = faces_of([0] * 50 + [1] * 30 + [2] * 20, 3)
    limited = limit_train(faces, 20, seed=0)
    assert limited.train.counts(3) == [10, 6, 4]
    positions = limited.train.images[:, 0, 0]
    assert len(set(positions.tolist())) == 20
    assert np.array_equal(limited.train.labels, faces.train.labels[positions])
    assert limited.val is faces.val
    assert limited.test is faces.test


def test_limit_train_keeps_one_of_a_rare_class():
    limited = limit_train(faces_of([0] * 150 + [1], 2), 10, seed=0)
    assert limited.train.counts(2) == [9, 1]


@pytest.mark.parametrize("n", range(4, 24))
def test_limit_train_gives_exactly_n(n):
    faces = faces_of([0] * 9 + [1] * 7 + [2] * 6 + [3], 4)
    counts = limit_train(faces, n, seed=n).train.counts(4)
    assert sum(counts) == n
    assert min(counts) >= 1


def test_limit_train_depends_on_n_and_seed_alone():
    faces = faces_of([0, 1] * 50, 2)
    first, again = limit_train(faces, 30, seed=1), limit_train(faces, 30, seed=1)
    other_seed, other_n = limit_train(faces, 30, seed=2), limit_train(faces, 31, seed=1)
    assert np.array_equal(first.train.images, again.train.images)
    assert first.fingerprint == again.fingerprint
    assert not np.array_equal(first.train.images, other_seed.train.images)
    prints = {split.fingerprint for split in (faces, first, other_seed, other_n)}
    assert len(prints) == 4


def test_limit_train_says_so_and_keeps_earlier_notes():
    faces = dataclasses.replace(faces_of([0, 1] * 50, 2), notes=("first",), stored_mean=np.zeros((4, 4), np.float32))
    limited = limit_train(faces, 30, seed=1)
    assert limited.name == faces.name
    assert limited.notes == ("first", "trained on 30 of 100 train images (stratified, seed 1)")
    assert np.allclose(limited.mean_image(), limited.train.images.mean())


@pytest.mark.parametrize("n", [-1, 0, 1, 101])
def test_limit_train_refuses_too_few_and_too_many(n):
    with pytest.raises(DataError, match=rf"to {n} images: choose 2 \(one a class\) to 100"):
        limit_train(faces_of([0, 1] * 50, 2), n, seed=0)
