"""Images from elsewhere: colours, sizes and types that no data set of ours has."""

import numpy as np
import pytest
from PIL import Image

from fer_data import DataError
from fer_data.images.raw_images import grey_faces


def test_colours_become_grey_as_the_standard_says() -> None:
    pixels = np.array([[[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 10, 10]]]], np.uint8)
    # ITU-R BT.601 by hand: 0.299, 0.587 and 0.114 of 255.
    assert grey_faces(pixels, (2, 2), "area").tolist() == [[[76, 150], [29, 10]]]


def test_any_size_comes_to_the_side_by_the_filter() -> None:
    image = np.kron(np.array([[0, 100], [50, 200]]), np.ones((3, 2))).astype(np.uint8)
    assert grey_faces(image[None], (2, 2), "area").tolist() == [[[0, 100], [50, 200]]]
    drawn = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), np.uint8)
    expected = [
        np.asarray(Image.fromarray(one).convert("L").resize((48, 48), Image.Resampling.LANCZOS)) for one in drawn
    ]
    np.testing.assert_array_equal(grey_faces(drawn, (48, 48), "lanczos"), expected)


def test_numbers_from_json_are_levels() -> None:
    levels = [[[0, 255], [7, 8]]]
    for given in (np.array(levels), np.array(levels, dtype=object), np.array(levels, np.float64)):
        assert grey_faces(given, (2, 2), "area").tolist() == levels
    assert grey_faces(np.empty((0, 5, 5), np.uint8), (2, 2), "area").shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("images", "fault"),
    [
        (np.zeros((48, 48), np.uint8), r"\(48, 48\): expected grey \[n, height, width\]"),
        (np.zeros((1, 48, 48, 4), np.uint8), r"\(1, 48, 48, 4\)"),
        (np.zeros((1, 0, 48), np.uint8), r"\(1, 0, 48\)"),
        (np.full((1, 2, 2), 256), "not in 0..255"),
        (np.full((1, 2, 2), -1), "not in 0..255"),
        (np.full((1, 2, 2), 0.5), "not whole"),
        (np.full((1, 2, 2), "x", object), "expected whole numbers"),
    ],
)
def test_what_is_no_image_is_said(images: np.ndarray, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        grey_faces(images, (2, 2), "area")


def test_faces_that_are_no_squares_are_taken_as_they_are() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    np.testing.assert_array_equal(grey_faces(images, (3, 4), "area"), images)
    with pytest.raises(DataError, match=r"make these \(3, 4\) as well"):
        grey_faces(images[:, :2], (3, 4), "area")
