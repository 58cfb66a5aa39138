import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fer_data import AugmentConfig
from fer_data.augment import augment


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


@pytest.mark.parametrize(
    ("name", "value"),
    [("flip", 1.1), ("flip", -0.1), ("rotate_deg", 181), ("shift", 0.6), ("scale", 0.6), ("erase", math.nan)],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        AugmentConfig(**{name: value})


def test_unknown_names_and_changes_are_refused():
    with pytest.raises(ValidationError, match="flipp"):
        AugmentConfig(flipp=0.5)
    with pytest.raises(ValidationError, match="frozen"):
        AugmentConfig().flip = 1.0
