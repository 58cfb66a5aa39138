import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fer_data import AugmentConfig
from fer_data.augmentation.augment import _paths, augment
from fer_data.augmentation.augment_config import DL_COURSE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int = 8, height: int = 48, width: int = 48) -> Tensor:
    return torch.randint(0, 256, (n, height, width), generator=generator(1), dtype=torch.uint8)


def blobs(n: int, x: float, y: float, height: int = 48, width: int = 48) -> Tensor:
    """Images with one round bright spot, x and y pixels from the middle."""
    columns = torch.arange(width) - (width - 1) / 2 - x
    rows = torch.arange(height) - (height - 1) / 2 - y
    spot = 255 * torch.exp(-(columns[None, :] ** 2 + rows[:, None] ** 2) / (2 * 2.0**2))
    return spot.to(torch.uint8).expand(n, height, width)


def centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """Centre of mass of each image [n, 1, h, w], pixels from the middle."""
    height, width = images.shape[-2:]
    mass = images.sum((1, 2, 3))
    x = (images.sum((1, 2)) * (torch.arange(width) - (width - 1) / 2)).sum(1) / mass
    y = (images.sum((1, 3)) * (torch.arange(height) - (height - 1) / 2)).sum(1) / mass
    return x, y


def test_all_off_is_the_identity():
    images = noise()
    result = augment(images, AugmentConfig(), generator())
    assert result.dtype == torch.float32
    assert torch.equal(result, images.unsqueeze(1).float())


def test_certain_flip_mirrors_left_and_right():
    image = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8)
    assert augment(image, AugmentConfig(flip=1), generator()).tolist() == [[[[2, 1], [4, 3]]]]


def test_flip_draws_per_image():
    images = noise(400)
    result = augment(images, AugmentConfig(flip=0.5), generator())[:, 0]
    same = (result == images).all(2).all(1)
    mirrored = (result == images.flip(-1)).all(2).all(1)
    assert torch.all(same | mirrored)
    assert abs(int(mirrored.sum()) - 200) < 50  # five standard deviations of Binomial(400, 1/2)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 60)])
def test_rotation_keeps_the_distance_from_the_middle(height, width):
    x, y = centres(augment(blobs(500, 10, 0, height, width), AugmentConfig(rotate_deg=30), generator()))
    assert torch.allclose(torch.hypot(x, y), torch.tensor(10.0), atol=0.15)
    angles = torch.rad2deg(torch.atan2(y, x))
    assert 29 < angles.max() < 30.5
    assert -30.5 < angles.min() < -29


def test_shift_is_a_fraction_of_the_side():
    x, y = centres(augment(blobs(500, 0, 0), AugmentConfig(shift=0.125), generator()))
    for along in (x, y):
        assert 5.8 < along.max() < 6.1
        assert along.std() == pytest.approx(6 / math.sqrt(3), rel=0.1)  # of a uniform distribution over ±6
    assert abs(torch.corrcoef(torch.stack((x, y)))[0, 1]) < 0.2


def test_scale_moves_points_away_from_the_middle_or_to_it():
    x, y = centres(augment(blobs(500, 10, 0), AugmentConfig(scale=0.2), generator()))
    assert y.abs().max() < 0.1
    assert 7.9 < x.min() < 8.2
    assert 11.8 < x.max() < 12.1


def test_borders_are_continued_and_the_range_is_kept():
    config = AugmentConfig(flip=0.5, rotate_deg=180, shift=0.5, scale=0.5)
    flat = augment(torch.full((50, 48, 48), 200, dtype=torch.uint8), config, generator())
    assert torch.allclose(flat, torch.tensor(200.0), atol=1e-3)
    varied = augment(noise(50), config, generator())
    assert varied.min() >= 0
    assert varied.max() <= 255.001


def test_shear_slants_the_vertical_alone():
    config = AugmentConfig(shear_deg=30)
    x, y = centres(augment(blobs(500, 0, 10), config, generator()))
    assert torch.allclose(y, torch.tensor(10.0), atol=0.15)
    assert 5.5 < x.max() < 10 * math.tan(math.radians(30)) + 0.1
    assert -10 * math.tan(math.radians(30)) - 0.1 < x.min() < -5.5
    x, y = centres(augment(blobs(100, 10, 0), config, generator()))
    assert torch.allclose(x, torch.tensor(10.0), atol=0.15)
    assert torch.allclose(y, torch.tensor(0.0), atol=0.15)


def test_a_flip_comes_before_the_other_movements():
    config = AugmentConfig(flip=1, rotate_deg=30)
    x, y = centres(augment(blobs(300, 10, 0), config, generator()))
    assert torch.allclose(torch.hypot(x, y), torch.tensor(10.0), atol=0.15)
    assert x.max() < -8


def test_crop_moves_by_whole_pixels_and_fills_with_black():
    images = noise(200).clamp(min=1)
    result = augment(images, AugmentConfig(crop_pad=2), generator())[:, 0]
    framed = torch.nn.functional.pad(images.float(), (2, 2, 2, 2))
    places = torch.stack([framed[:, y : y + 48, x : x + 48] for y in range(5) for x in range(5)])
    matches = (places == result).all(3).all(2)
    assert torch.equal(matches.sum(0), torch.ones(200, dtype=torch.int64))
    assert matches.sum(1).max() < 30  # 8 are expected of each of the 25 places
    assert matches.any(1).all()


def test_blur_spreads_a_point_by_its_deviation():
    point = torch.zeros(400, 49, 49, dtype=torch.uint8)
    point[:, 24, 24] = 255
    result = augment(point, AugmentConfig(blur=1, blur_sigma=2.0), generator())[:, 0]
    assert torch.allclose(result.sum((1, 2)), torch.tensor(255.0), rtol=1e-4)
    distance = torch.arange(49) - 24.0
    deviation = ((result.sum(1) * distance**2).sum(1) / 255).sqrt()
    assert 1.9 < deviation.max() < 2.01
    assert deviation.min() == 0  # below 1/3.5 pixel the kernel is one pixel
    assert deviation.mean() == pytest.approx(1.05, abs=0.15)  # of a uniform distribution over 0.1..2
    assert torch.allclose(result, result.transpose(1, 2), atol=1e-3)


def test_blur_continues_the_border_and_chooses_images():
    config = AugmentConfig(blur=0.25, blur_sigma=3.0)
    flat = augment(torch.full((50, 20, 30), 200, dtype=torch.uint8), config, generator())
    assert torch.allclose(flat, torch.tensor(200.0), atol=1e-3)
    images = noise(400)
    sharp = (augment(images, config, generator())[:, 0] == images).all(2).all(1)
    assert abs(int(sharp.sum()) - 300) < 50  # five standard deviations of Binomial(400, 1/4), and the smallest kernels


def test_brightness_adds_and_contrast_multiplies():
    grey = torch.full((2000, 4, 4), 100, dtype=torch.uint8)
    brighter = augment(grey, AugmentConfig(brightness=0.2), generator())[:, 0, 0, 0]
    assert 49 <= brighter.min() < 50.5
    assert 149.5 < brighter.max() <= 151
    stronger = augment(grey, AugmentConfig(contrast=0.3), generator())[:, 0, 0, 0]
    assert 70 <= stronger.min() < 71
    assert 129 < stronger.max() <= 130
    assert stronger.std() == pytest.approx(30 / math.sqrt(3), rel=0.1)


def test_noise_has_its_deviation_in_its_share_of_images():
    grey = torch.full((600, 48, 48), 128, dtype=torch.uint8)
    config = AugmentConfig(noise=8, noise_min=4, noise_probability=0.5)
    added = augment(grey, config, generator())[:, 0] - 128
    deviation = added.std((1, 2))
    noisy = deviation > 0
    assert abs(int(noisy.sum()) - 300) < 62  # five standard deviations of Binomial(600, 1/2)
    assert deviation[noisy].min() > 4 * 0.93  # an image's own deviation is known to 1.5 %
    assert deviation.max() < 8 * 1.07
    assert deviation[noisy].mean() == pytest.approx(6, rel=0.05)
    shape = added[noisy] / deviation[noisy].view(-1, 1, 1)
    assert abs(shape.mean()) < 0.01
    assert (shape**4).mean() == pytest.approx(3, rel=0.05)  # the kurtosis of a normal distribution


def test_noise_differs_from_image_to_image_and_from_pixel_to_pixel():
    grey = torch.full((100, 48, 48), 128, dtype=torch.uint8)
    added = augment(grey, AugmentConfig(noise=8, noise_min=8), generator())[:, 0] - 128
    between = torch.corrcoef(added.flatten(1)).fill_diagonal_(0)
    assert between.abs().max() < 0.15  # five standard deviations are 0.10; the stretches of two may touch
    neighbours = torch.stack((added[:, :, :-1].flatten(), added[:, :, 1:].flatten()))
    assert abs(torch.corrcoef(neighbours)[0, 1]) < 0.01


def test_grey_levels_stay_on_the_scale_of_uint8_alone():
    config = AugmentConfig(brightness=1, contrast=1, noise=50)
    on_scale = augment(noise(50), config, generator())
    assert (on_scale.min(), on_scale.max()) == (0, 255)
    beyond = augment(noise(50).float(), config, generator())
    assert beyond.min() < 0
    assert beyond.max() > 255


def test_float_images_vary_as_uint8_ones_do_and_stay_what_they_were():
    config = AugmentConfig(flip=0.5, crop_pad=2, rotate_deg=9, blur=0.5, cutout=3, cutout_size=5, erase=0.5)
    images = noise()
    floats = images.float()
    assert torch.allclose(augment(floats, config, generator()), augment(images, config, generator()), atol=1e-3)
    for single in (AugmentConfig(), AugmentConfig(cutout=2), AugmentConfig(flip=1), AugmentConfig(noise=5)):
        augment(floats, single, generator())
    assert torch.equal(floats, images.float())


def test_cutout_blackens_squares_inside_the_image():
    white = torch.full((2000, 20, 30), 255, dtype=torch.uint8)
    black = augment(white, AugmentConfig(cutout=1, cutout_size=3), generator())[:, 0] == 0
    assert torch.equal(black.sum((1, 2)), torch.full((2000,), 9))
    assert torch.equal(black.any(1).sum(1), torch.full((2000,), 3))
    assert black.any(0).all()
    two = augment(white, AugmentConfig(cutout=2, cutout_size=2), generator())[:, 0] == 0
    assert set(two.sum((1, 2)).tolist()) <= {4, 6, 7, 8}  # 8 unless they overlap
    assert (two.sum((1, 2)) == 8).float().mean() > 0.95


def test_a_square_larger_than_the_image_is_the_image():
    white = torch.full((3, 5, 6), 255, dtype=torch.uint8)
    assert not augment(white, AugmentConfig(cutout=1, cutout_size=9), generator()).any()


def test_erase_fills_one_rectangle_of_two_to_twenty_percent():
    grey = torch.full((500, 48, 48), 128, dtype=torch.uint8)
    erased = augment(grey, AugmentConfig(erase=1), generator())[:, 0] != 128
    rows, columns = erased.any(2).sum(1), erased.any(1).sum(1)
    area = rows * columns
    assert torch.equal(erased.sum((1, 2)), area)  # what changed fills its bounding box: noise is never exactly 128
    assert area.min() >= 0.02 * 2304 * 0.85  # sides are rounded to whole pixels
    assert area.max() <= 0.20 * 2304 * 1.15
    assert area.float().std() > 0.04 * 2304


def test_erase_draws_per_image():
    grey = torch.full((400, 48, 48), 128, dtype=torch.uint8)
    erased = (augment(grey, AugmentConfig(erase=0.25), generator()) != 128).any(3).any(2).any(1)
    assert abs(int(erased.sum()) - 100) < 44  # five standard deviations of Binomial(400, 1/4)


def test_the_generator_alone_decides():
    config = AugmentConfig(flip=0.5, rotate_deg=10, shift=0.1, scale=0.1, erase=0.5)
    torch.manual_seed(1)
    first = augment(noise(), config, generator(5))
    torch.manual_seed(2)
    assert torch.equal(first, augment(noise(), config, generator(5)))
    assert not torch.equal(first, augment(noise(), config, generator(6)))


def test_threads_change_nothing():
    config = AugmentConfig(flip=0.5, rotate_deg=10, shift=0.1, crop_pad=2, blur=0.5, contrast=0.1, noise=5, erase=0.5)
    images, threads = noise(64), torch.get_num_threads()
    try:
        results = []
        for number in (1, 4):
            torch.set_num_threads(number)
            results.append(augment(images, config, generator(5)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_the_course_s_augmentation_leaves_faces_to_be_seen():
    images = noise(300).clamp(60, 200)
    varied = augment(images, DL_COURSE, generator())[:, 0]
    mirrored = (varied - images.flip(-1)).abs().mean((1, 2)) < (varied - images).abs().mean((1, 2))
    change = varied - torch.where(mirrored.view(-1, 1, 1), images.flip(-1), images)
    assert abs(int(mirrored.sum()) - 150) < 44  # five standard deviations of Binomial(300, 1/2)
    holes = (varied == 0).sum((1, 2))
    assert holes.min() >= 4
    assert holes.max() == 8
    deviation = change[:, ::1].masked_fill(varied == 0, 0).std((1, 2))
    assert abs(int((deviation > 1).sum()) - 150) < 44
    assert deviation.max() < math.sqrt(50) * 1.1


def test_noise_on_int64_leaves_what_albumentations_left_of_it():
    """Its `clipped` took 1 for the largest value of a type that it did not know: np.clip(x, 0, 1).astype(int64)."""
    images = noise(300).clamp(0, 9)
    config = AugmentConfig(flip=0.5, noise=5, noise_min=4, noise_probability=0.5)
    usual = augment(images, config, generator()).numpy()[:, 0]
    ours = augment(images, config.model_copy(update={"engine": "batched_int64"}), generator()).numpy()[:, 0]
    noisy = (usual != np.trunc(usual)).any(axis=(1, 2))
    assert abs(noisy.sum() - 150) < 44  # five standard deviations of Binomial(300, 1/2)
    assert np.array_equal(ours[~noisy], usual[~noisy])
    assert np.array_equal(ours[noisy], np.clip(usual[noisy], 0, 1).astype(np.int64))
    assert set(np.unique(ours[noisy])) == {0, 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flip", 1.1),
        ("flip", -0.1),
        ("rotate_deg", 181),
        ("shift", 0.6),
        ("scale", 0.6),
        ("erase", math.nan),
        ("crop_pad", 1.5),
        ("noise", -1),
        ("cutout_size", 0),
        ("mixup", -1),
        ("engine", "kornia"),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        AugmentConfig(**{name: value})


def test_unknown_names_and_changes_are_refused():
    with pytest.raises(ValidationError, match="flipp"):
        AugmentConfig(flipp=0.5)
    with pytest.raises(ValidationError, match="frozen"):
        AugmentConfig().flip = 1.0


def test_settings_that_contradict_each_other_are_all_named():
    with pytest.raises(ValidationError) as raised:
        AugmentConfig(noise_min=3, pipeline={"transform": {}}, flip=0.5)
    message = str(raised.value)
    assert "noise_min 3 is larger than noise 0" in message
    assert "pipeline needs engine 'albumentations', got 'batched'" in message
    assert "pipeline takes the place of flip to erase" in message


def test_what_a_graph_may_read_is_kept():
    """A captured augmentation reads this tensor at the same address, however many others a process needs later."""
    kept = _paths(48, 3, torch.device("cpu"))
    for reach in range(4, 36):
        _paths(48, reach, torch.device("cpu"))
    assert _paths(48, 3, torch.device("cpu")) is kept
