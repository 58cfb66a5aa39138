"""The two engines' variations of one face, held against each other, and a user's own pipelines."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
import pytest
import torch

from fer_data import AugmentConfig, DataError, Split, read_pipeline
from fer_data.augmentation.albumentations_engine import augment_images
from fer_data.augmentation.augment import augment
from fer_data.augmentation.batches import train_batches
from tests.fer_data.small_faces import split_of

DRAWS = 1000


@pytest.fixture(scope="module")
def face(synthetic_faces) -> np.ndarray:
    return np.array(synthetic_faces.train.images[3])


@pytest.mark.parametrize(
    "settings",
    [
        {"flip": 0.5},
        {"rotate_deg": 15},
        {"shift": 0.25},
        {"scale": 0.2},
        {"shear_deg": 20},
        {"crop_pad": 4},
        {"blur": 0.5, "blur_sigma": 2.0},
        {"brightness": 0.2, "contrast": 0.2},
        {"noise": 10, "noise_min": 5, "noise_probability": 0.5},
        {"cutout": 2, "cutout_size": 8},
        {"erase": 0.5},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_both_engines_draw_from_one_distribution(face, settings):
    config, faces = AugmentConfig(**settings), np.repeat(face[None], DRAWS, axis=0)
    batched = augment(torch.from_numpy(faces), config, torch.Generator().manual_seed(0))[:, 0].numpy().astype(float)
    single = augment_images(faces, config.model_copy(update={"engine": "albumentations"}), seed=0).astype(float)
    # Means of a pixel differ by chance, five of their standard deviations at most, and by what albumentations rounds.
    by_chance = 5 * np.sqrt((batched.var(0) + single.var(0)) / DRAWS)
    assert np.all(np.abs(batched.mean(0) - single.mean(0)) < by_chance + 1.5)
    # It moves by whole pixels, rounded towards 0, which takes 8 % of the variance of a shift of a quarter; its
    # erased rectangles have another law of aspects. A block is erased in some 30 draws, which vary by a fifth.
    spread, expected = blocks(single.var(0)), blocks(batched.var(0))
    assert single.var(0).sum() == pytest.approx(batched.var(0).sum(), rel=0.2)
    assert np.allclose(spread, expected, rtol=0.3, atol=0.3 * expected.mean())


def test_threads_that_vary_faces_by_equal_settings_draw_what_one_does(face):
    config, faces = AugmentConfig(engine="albumentations", flip=0.5, rotate_deg=15), np.repeat(face[None], 40, axis=0)

    def varied(seed: int) -> np.ndarray:
        return augment_images(faces, config, seed)

    alone = [varied(seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(varied, range(24)))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def blocks(pixels: np.ndarray) -> np.ndarray:
    """Means over squares of 8x8 pixels."""
    return pixels.reshape(6, 8, 6, 8).mean((1, 3))


def test_transforms_decide_independently_of_each_other():
    ramp = np.tile(np.arange(100, 148, dtype=np.uint8), (400, 48, 1))
    config = AugmentConfig(flip=0.5, noise=9, noise_min=9, noise_probability=0.5, engine="albumentations")
    varied = augment_images(ramp, config, seed=1).astype(float)
    flipped = varied[:, :, 0].mean(1) > varied[:, :, -1].mean(1)
    noisy = varied.std(1).mean(1) > 1
    for both in (flipped & noisy, flipped & ~noisy, ~flipped & noisy, ~flipped & ~noisy):
        assert abs(both.sum() - 100) < 44  # five standard deviations of Binomial(400, 1/4)


def test_float_images_stay_on_the_scale_of_grey_levels(face):
    config = AugmentConfig(flip=1, engine="albumentations")
    floats = face[None].astype(np.float32)
    assert np.allclose(augment_images(floats, config, seed=0), floats[:, :, ::-1], atol=1e-3)
    with pytest.raises(DataError, match=r"cuts grey levels off at 0 and 255, these images have -300 to .*'batched'"):
        augment_images(floats - 300 - floats.min(), config, seed=0)


def own(*transforms: A.BasicTransform) -> AugmentConfig:
    return AugmentConfig(engine="albumentations", pipeline=json.loads(json.dumps(A.Compose(transforms).to_dict())))


def test_a_pipeline_of_one_s_own_is_applied(face):
    config = own(A.HorizontalFlip(p=1), A.InvertImg(p=1))
    assert np.array_equal(augment_images(face[None], config, seed=0)[0], 255 - face[:, ::-1])


@pytest.mark.parametrize("data_format", ["yaml", "json"])
def test_a_pipeline_comes_from_a_file(tmp_path, face, data_format):
    path = tmp_path / "pipeline"
    A.save(A.Compose([A.VerticalFlip(p=1)]), path, data_format=data_format)
    config = AugmentConfig(engine="albumentations", pipeline=read_pipeline(path))
    assert AugmentConfig.model_validate_json(config.model_dump_json()) == config
    assert np.array_equal(augment_images(face[None], config, seed=0)[0], face[::-1])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"transform: [", "neither YAML nor JSON"), (b"a: 1", "key transform"), (b"\xff\xfe\xff", "neither YAML")],
)
def test_a_file_that_holds_no_pipeline_is_refused(tmp_path, content, message):
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: .*{message}"):
        read_pipeline(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.yaml: cannot be read: No such file or directory"):
        read_pipeline(tmp_path / "absent.yaml")


def serialised(name: str, **arguments: object) -> AugmentConfig:
    transform = {"__class_fullname__": "Compose", "p": 1.0, "transforms": [{"__class_fullname__": name, **arguments}]}
    return AugmentConfig(engine="albumentations", pipeline={"__version__": "2.0.8", "transform": transform})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (serialised("HorizontalFlp", p=1), r"refuses the pipeline: .*HorizontalFlp.*; did you mean 'HorizontalFlip'\?"),
        (serialised("HorizontalFlip", p=2), "refuses the pipeline: .*less than or equal to 1"),
        (serialised("Affine", rotat=5, p=1), r"refuses the pipeline: .*'rotat' are not valid for transform Affine"),
        (serialised("Normalize", p=1), "refuses a grey image of 4x4|returns float32, expected uint8"),
        (serialised("ToTensorV2", p=1), "returns torch.Tensor, expected uint8 .*leave out Normalize and ToTensorV2"),
        (serialised("Resize", height=2, width=2, p=1), r"returns an image \(2, 2, 1\), expected 4x4 grey"),
        (serialised("RandomCrop", height=9, width=9, p=1), "refuses a grey image of 4x4: .*[Cc]rop"),
        (AugmentConfig(engine="albumentations", pipeline={"transform": 3}), "refuses the pipeline"),
    ],
    ids=["name", "value", "argument", "normalised", "tensor", "size", "crop", "nothing"],
)
def test_a_pipeline_that_does_not_do_is_refused_before_the_first_batch(config, message):
    with pytest.raises(DataError, match=message):
        train_batches(split_of([0, 1, 2]), 2, config, torch.Generator())


CONFIG = AugmentConfig(flip=0.5, noise=9, cutout=1, mixup=0.3, plain_and_augmented=True, engine="albumentations")


def epoch(split: Split, workers: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batches = list(train_batches(split, 8, CONFIG, generator, classes=7, workers=workers))
    return [torch.cat(parts) for parts in zip(*batches, strict=True)] + [torch.rand(1, generator=generator)]


def test_batches_come_as_from_the_other_engine_and_from_the_generator_alone():
    split = split_of([number % 7 for number in range(40)], height=12, width=10)
    first, again, other = (epoch(split, workers=0, seed=seed) for seed in (3, 3, 4))
    assert (first[0].shape, first[0].dtype, first[1].shape) == ((80, 1, 12, 10), torch.float32, (80, 7))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.slow
def test_workers_change_nothing():
    split = split_of([number % 7 for number in range(40)], height=12, width=10)
    assert all(torch.equal(*pair) for pair in zip(epoch(split, workers=0), epoch(split, workers=2), strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_an_epoch_may_be_left_early_and_the_next_one_is_whole():
    split = split_of([number % 7 for number in range(40)], height=12, width=10)
    begun = train_batches(split, 8, CONFIG, torch.Generator(), classes=7, workers=2)
    next(begun)
    del begun
    assert len(epoch(split, workers=2)[0]) == 80
