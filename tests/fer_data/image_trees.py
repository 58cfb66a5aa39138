"""Small data sets of synthetic faces, in memory and as folders of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fer_data import EXPRESSIONS, Faces, Split
from fer_data.faces import GreyLevels, fingerprint_of
from fer_data.options import DataOptions
from fer_data.sources.synthetic import draw_faces

PLAIN = DataOptions()
SKIPPING = DataOptions(skip_bad=True)
EXPRESSION_FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def small_faces(classes: tuple[str, ...] = EXPRESSIONS) -> Faces:
    """Shuffled synthetic faces: 3 a class in train, 2 in val, 1 in test."""
    rng = np.random.default_rng(5)
    splits = []
    for name, copies in (("train", 3), ("val", 2), ("test", 1)):
        labels = rng.permutation(np.repeat(np.arange(len(classes), dtype=np.uint8), copies))
        splits.append(Split(name, draw_faces(labels % 7, rng), labels))
    train, val, test = splits
    return Faces("small", fingerprint_of(splits), classes, train, val, test, synthetic=True)


def grey(level: int, height: int = 8, width: int = 8) -> GreyLevels:
    return np.full((height, width), level, np.uint8)


def save(path: Path, image: GreyLevels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def write_tree(root: Path, files: Mapping[str, int]) -> Path:
    """Write PNGs filled with one grey level: relative path -> level."""
    for name, level in files.items():
        save(root / name, grey(level))
    return root


def two_classes(root: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """cats and dogs, two pictures each a split, every picture of another level."""
    files = [f"{split}/{name}/{number}.png" for split in splits for name in ("cats", "dogs") for number in (1, 2)]
    return write_tree(root, {file: 10 * place for place, file in enumerate(files)})


def same_pixels(one: Faces, other: Faces) -> bool:
    return all(
        np.array_equal(getattr(one, name).images, getattr(other, name).images)
        and np.array_equal(getattr(one, name).labels, getattr(other, name).labels)
        for name in ("train", "val", "test")
    )
