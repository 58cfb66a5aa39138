import numpy as np
import pytest

from fer_data import EXPRESSIONS, DataError, Split
from fer_data.faces import fingerprint_of
from tests.fer_data.small_faces import faces_of, split_of


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


def test_soft_labels_and_leaks_must_fit():
    images, labels = np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.uint8)
    with pytest.raises(DataError, match=r"soft labels \(2, 7\), expected \[3, classes\]"):
        Split("train", images, labels, soft_labels=np.zeros((2, 7), np.float32))
    with pytest.raises(DataError, match=r"leaked \(2,\), expected \[3\]"):
        Split("val", images, labels, leaked=np.zeros(2, bool))


def test_soft_labels_count_in_the_fingerprint():
    images, labels = np.zeros((2, 4, 4), np.uint8), np.array([0, 1], np.uint8)
    soft = np.eye(2, dtype=np.float32)
    prints = {
        fingerprint_of([Split("train", images, labels, given)])
        for given in (None, soft, np.full((2, 2), 0.5, np.float32))
    }
    assert len(prints) == 3
