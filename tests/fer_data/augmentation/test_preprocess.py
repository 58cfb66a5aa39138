import platform
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import exposure, filters
from skimage.morphology import disk

import fer_data
from fer_data import DataError
from fer_data.augmentation.preprocess import preprocess
from fer_data.augmentation.preprocess_names import PREPROCESSINGS
from fer_data.cache.cache_folder import keep
from fer_data.cache.preprocess_cache import preprocessed

BINARY = ("yen", "isodata", "mean_threshold")
EDGES = ("prewitt", "scharr", "sobel", "roberts")


@pytest.fixture(scope="module")
def images(synthetic_faces):
    return synthetic_faces.train.images[:12]


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_those_of_scikit_image_on_each_image(images, name):
    expected = [255 * getattr(filters, name)(image) for image in images]
    assert np.allclose(preprocess(images, name), expected, atol=1e-3)


@pytest.mark.parametrize(("name", "threshold"), [("yen", "yen"), ("isodata", "isodata"), ("mean_threshold", "mean")])
def test_thresholds_are_those_of_scikit_image_on_each_image(images, name, threshold):
    expected = [255.0 * (image > getattr(filters, f"threshold_{threshold}")(image)) for image in images]
    assert np.array_equal(preprocess(images, name), expected)


def test_clahe_is_that_of_scikit_image(images):
    expected = [255 * exposure.equalize_adapthist(image, clip_limit=0.99) for image in images]
    assert np.allclose(preprocess(images, "clahe"), expected, atol=1e-3)


def test_local_equalising_is_that_of_scikit_image(images):
    expected = [filters.rank.equalize(image.copy(), disk(30)) for image in images]
    assert np.array_equal(preprocess(images, "equalise_local"), expected)


def test_global_equalising_spreads_the_ranks_of_the_grey_levels():
    # OpenCV: round(255 (cumulative - first) / (n - first)) with 4, 8, 12, 16 of 16 pixels at or below each level
    image = np.repeat(np.array([10, 20, 30, 40], np.uint8), 4).reshape(1, 4, 4)
    expected = np.repeat(np.array([0, 85, 170, 255]), 4).reshape(1, 4, 4)
    assert np.array_equal(preprocess(image, "equalise_global"), expected)


def test_normalising_stretches_from_black_to_white():
    image = np.array([[[50, 100], [60, 150]]], np.uint8)
    assert preprocess(image, "normalise").tolist() == [[[0, 127.5], [25.5, 255]]]


def test_normalising_is_that_of_opencv(images):
    expected = [255 * cv2.normalize(np.array(image), None, 0, 1, cv2.NORM_MINMAX, cv2.CV_32F) for image in images]
    assert np.allclose(preprocess(images, "normalise"), expected, atol=1e-3)


def test_standardised_images_have_mean_0_and_deviation_1_in_units_of_64_about_the_middle(images):
    z = (preprocess(images, "standardise") - 127.5) / 64
    assert np.allclose(z.mean((1, 2)), 0, atol=1e-5)
    assert np.allclose(z.std((1, 2)), 1, atol=1e-5)


def test_scaled_images_have_deviation_64_and_keep_their_ratios():
    image = np.array([[[10, 30], [10, 30]]], np.uint8)  # deviation 10
    assert np.allclose(preprocess(image, "scale"), [[[64, 192], [64, 192]]])


def test_the_mean_image_is_subtracted_about_the_middle():
    image, mean = np.array([[[10, 30]]], np.uint8), np.array([[20, 5]], np.float32)
    assert preprocess(image, "mean_image", mean).tolist() == [[[117.5, 152.5]]]
    with pytest.raises(DataError, match="needs the mean image of train"):
        preprocess(image, "mean_image")


@pytest.mark.parametrize("name", [name for name in PREPROCESSINGS if name != "standardise_int64"])
@pytest.mark.parametrize("level", [0, 77, 255])
def test_constant_images_stay_finite(name, level):
    constant = np.full((1, 48, 48), level, np.uint8)
    result = preprocess(constant, name, np.zeros((48, 48), np.float32))
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert np.abs(result).max() <= 127.5 + 255


@pytest.mark.parametrize("name", [*BINARY, *EDGES, "clahe", "normalise", "equalise_local", "equalise_global", "none"])
def test_bounded_outputs_lie_on_the_scale_of_grey_levels(images, name):
    result = preprocess(images, name)
    assert 0 <= result.min() < result.max() <= 255
    if name in BINARY:
        assert set(np.unique(result)) == {0, 255}


def test_the_report_s_integers_lose_all_fractions(images):
    for name in EDGES:
        assert not preprocess(images, f"{name}_int64").any()  # hence its 24.49 %, all "Happy"
    assert set(np.unique(preprocess(images, "normalise_int64"))) == {0, 1}
    assert np.array_equal(preprocess(images, "normalise_int64") == 1, images == images.max((1, 2), keepdims=True))
    assert np.array_equal(preprocess(images, "yen_int64"), preprocess(images, "yen") / 255)
    assert np.array_equal(preprocess(images, "equalise_local_int64"), preprocess(images, "equalise_local"))
    z = (preprocess(images, "standardise") - 127.5) / 64
    assert np.array_equal(preprocess(images, "standardise_int64"), np.trunc(z))
    assert preprocess(images, "clahe_int64").mean() < 0.05


@pytest.mark.skipif(platform.machine() != "x86_64", reason="what becomes of NaN depends on the processor")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_blank_image_among_the_report_s_integers_is_what_numpy_makes_of_it(images):
    images = np.concatenate([images[:2], np.full((1, 48, 48), 77, np.uint8)])
    stored = np.zeros(images.shape, np.int64)
    for place, image in zip(stored, images, strict=True):
        place[...] = (image - image.mean()) / image.std()
    assert np.array_equal(preprocess(images, "standardise_int64"), stored.astype(np.float32))


def test_unknown_names_are_refused_with_the_nearest(images):
    with pytest.raises(DataError, match=r"unknown preprocessing 'sobell'; did you mean 'sobel'\?; known are none, st"):
        preprocess(images, "sobell")


def test_a_read_only_map_of_one_image_is_taken_and_left_alone(images):
    before = np.array(images)
    for name in PREPROCESSINGS:
        preprocess(images[:2], name, np.zeros((48, 48), np.float32))
    assert np.array_equal(before, images)


def kept(train: fer_data.Split, val: fer_data.Split, test: fer_data.Split) -> Path:
    return keep(fer_data.Faces("few", "0123456789abcdef", fer_data.EXPRESSIONS, train, val, test, True, ("a note",)))


@pytest.fixture
def folder(synthetic_faces) -> Path:
    splits = (synthetic_faces.train, synthetic_faces.val, synthetic_faces.test)
    return kept(*(fer_data.Split(split.name, split.images[:20], split.labels[:20]) for split in splits))


def test_a_preprocessed_data_set_is_a_cache_of_its_own(folder):
    base, made = fer_data.open_cached(folder), preprocessed(folder, "mean_image")
    faces = fer_data.open_cached(made)
    assert made.parent == folder.parent
    assert faces.fingerprint == made.name != base.fingerprint
    assert (faces.name, faces.classes, faces.synthetic) == (base.name, base.classes, True)
    assert faces.notes == (*base.notes, "preprocessed: mean_image")
    assert isinstance(faces.train.images, np.memmap)
    for new, old in zip((faces.train, faces.val, faces.test), (base.train, base.val, base.test), strict=True):
        assert np.array_equal(new.labels, old.labels)
        assert np.allclose(new.images, 127.5 + old.images - base.mean_image(), atol=1e-3)  # train's mean everywhere
    assert np.allclose(faces.mean_image(), 127.5, atol=1e-3)


def test_a_preprocessed_data_set_is_made_once(folder, monkeypatch):
    made = preprocessed(folder, "yen")
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert preprocessed(folder, "yen") == made
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before
    (made / "val_images.npy").unlink()
    assert preprocessed(folder, "yen") == made
    assert len(fer_data.open_cached(made).val.images) == 20


def test_none_is_the_data_set_itself(folder):
    assert preprocessed(folder, "none") == folder


def test_a_preprocessed_data_set_is_not_preprocessed_again(folder):
    once = preprocessed(folder, "normalise")
    with pytest.raises(DataError, match="'scale' takes uint8 images, got float32"):
        preprocessed(once, "scale")
    assert {entry.name for entry in folder.parent.iterdir()} == {folder.name, once.name, "sources"}


@pytest.mark.slow
def test_a_large_data_set_is_preprocessed_by_several_processes_alike():
    images = np.random.default_rng(0).integers(0, 256, (4000, 8, 8), np.uint8)
    train, val, test = (
        fer_data.Split(name, part, np.zeros(len(part), np.uint8))
        for name, part in (("train", images[:3000]), ("val", images[3000:3400]), ("test", images[3400:]))
    )
    made = fer_data.open_cached(preprocessed(kept(train, val, test), "sobel"))
    for split, part in ((made.train, train), (made.val, val), (made.test, test)):
        assert np.array_equal(split.images, preprocess(part.images, "sobel"))


def test_processes_that_ask_at_once_agree_and_leave_nothing_behind(folder):
    program = (
        "import sys; from pathlib import Path; from fer_data.cache.preprocess_cache import preprocessed\n"
        "print(preprocessed(Path(sys.argv[1]), 'equalise_global'))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    (made,) = folders
    assert {entry.name for entry in folder.parent.iterdir()} == {folder.name, Path(made).name, "sources"}
    images, base = fer_data.open_cached(Path(made)).test.images, fer_data.open_cached(folder).test.images
    assert np.array_equal(images[7], cv2.equalizeHist(np.array(base[7])))
