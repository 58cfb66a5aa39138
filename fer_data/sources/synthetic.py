"""Draws faces with seven expressions by arithmetic, for tests, first runs and documentation without a data set.

The cartoon faces vary in identity, pose, light, occlusion and noise. A linear model on their pixels therefore fails,
and a small convolutional net does well. Which feature moves for which expression follows the prototypes of the Facial
Action Coding System (Ekman, Friesen and Hager 2002), exaggerated.

Coordinates: the origin is the middle of the head, x points right and y down, and half of the head's height is 1.
Numbers per image are [n, 1, 1], images [n, 48, 48], all float32. Pixels use only + - * / and square roots, which IEEE
754 rounds alike everywhere, so a seed gives the same faces on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_data.faces import EXPRESSIONS, SPLITS, Split

SIDE = 48
PER_CLASS = {"train": 600, "val": 120, "test": 120}

_CHUNK = 32  # images drawn at a time, so that an array fits into the cache: 2.2 s in all, 3.4 s with 128
_HALF_HEAD = 20.0  # pixels from the middle of the head to its chin, before the pose

Array = NDArray[np.float32]

# One row per expression, one column per feature; lengths in half head heights.
_FEATURES = (
    "brow_raise", "brow_slope", "brow_arch", "eye_open", "mouth_corners", "mouth_top", "mouth_bottom",
    "mouth_width", "teeth", "wrinkles", "folds",
)  # fmt: skip
_PROTOTYPES = {
    "Angry":    (-0.11, -0.15, 0.00, 0.75, -0.05, 0.02, 0.03, 0.30, 0.2, 0.2, 0.1),
    "Disgust":  (-0.06, -0.06, 0.01, 0.50, -0.12, 0.14, 0.00, 0.32, 0.7, 1.0, 0.9),
    "Fear":     (+0.10, +0.12, 0.01, 1.35, -0.05, 0.05, 0.09, 0.42, 0.6, 0.0, 0.0),
    "Happy":    (+0.02, +0.00, 0.05, 0.80, +0.20, 0.02, 0.14, 0.44, 1.0, 0.0, 0.8),
    "Sad":      (+0.02, +0.14, 0.00, 0.60, -0.15, 0.01, 0.01, 0.30, 0.0, 0.0, 0.2),
    "Surprise": (+0.15, +0.00, 0.09, 1.40, +0.00, 0.15, 0.22, 0.22, 0.0, 0.0, 0.0),
    "Neutral":  (+0.00, +0.00, 0.04, 1.00, +0.00, 0.01, 0.01, 0.33, 0.0, 0.0, 0.0),
}  # fmt: skip
_PERSONAL_SPREAD = (0.025, 0.025, 0.015, 0.10, 0.025, 0.012, 0.012, 0.03, 0.10, 0.08, 0.10)
_INTENSITY = (0.55, 1.15)


@dataclass(frozen=True)
class _Canvas:
    """The image being drawn, and the coordinates of each pixel relative to its head."""

    grey: Array
    x: Array
    y: Array
    sharpness: Array

    def paint(self, inside: Array, tone: Array | float, strength: Array | float = 1.0) -> None:
        """Blend a tone into the pixels where `inside`, a signed depth in half head heights, is positive."""
        cover = np.clip(inside * self.sharpness + np.float32(0.5), 0, 1) * strength
        self.grey[...] += cover * (tone - self.grey)


class _Draw:
    """Random numbers per image, [n, 1, 1]."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.rng, self.shape = rng, (n, 1, 1)

    def between(self, low: float, high: float) -> Array:
        return self.rng.uniform(low, high, self.shape).astype(np.float32)

    def around(self, middle: float, spread: float) -> Array:
        return self.rng.normal(middle, spread, self.shape).astype(np.float32)

    def chance(self, probability: float) -> Array:
        return (self.rng.random(self.shape) < probability).astype(np.float32)


def draw_splits() -> tuple[Split, Split, Split]:
    """Draw train, val and test: 600, 120 and 120 faces per expression, [n, 48, 48] uint8, shuffled."""
    streams = np.random.SeedSequence(0).spawn(len(SPLITS))
    train, val, test = (
        _draw_split(name, np.random.default_rng(stream)) for name, stream in zip(SPLITS, streams, strict=True)
    )
    return train, val, test


def _draw_split(name: str, rng: np.random.Generator) -> Split:
    labels = rng.permutation(np.repeat(np.arange(len(EXPRESSIONS), dtype=np.uint8), PER_CLASS[name]))
    chunks = [labels[start : start + _CHUNK] for start in range(0, len(labels), _CHUNK)]
    return Split(name, np.concatenate([draw_faces(chunk, rng) for chunk in chunks]), labels)


def draw_faces(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one face per label (an index into EXPRESSIONS): [n, 48, 48] uint8."""
    draw = _Draw(rng, len(labels))
    features = _features(labels, draw)
    canvas, skin = _pose(draw), draw.between(110, 215)
    turn = draw.between(-0.16, 0.16)
    hair_tone = np.where(draw.chance(0.75) > 0, draw.between(10, 75), draw.between(130, 240))
    _head(canvas, draw, skin, hair_tone)
    face = _Canvas(canvas.grey, canvas.x - turn, canvas.y, canvas.sharpness)
    _nose(face, draw, skin, features)
    _mouth(face, draw, skin, features)
    _eyes(face, draw, skin, features)
    _brows(face, draw, np.minimum(hair_tone, skin - 45), features)
    _beard_or_glasses(face, draw, skin)
    return _photograph(canvas, draw)


def _features(labels: NDArray[np.uint8], draw: _Draw) -> dict[str, Array]:
    prototypes = np.array([_PROTOTYPES[name] for name in EXPRESSIONS], dtype=np.float32)
    neutral = prototypes[EXPRESSIONS.index("Neutral")]
    wanted = (prototypes - neutral)[labels]
    drawn = {}
    intensity = draw.between(*_INTENSITY)
    for column, (name, spread) in enumerate(zip(_FEATURES, _PERSONAL_SPREAD, strict=True)):
        part = intensity * draw.around(1, 0.12) * wanted[:, column].reshape(draw.shape)
        drawn[name] = neutral[column] + part + draw.around(0, spread)
    return {**drawn, "lopsided": draw.around(0, 0.03)}


def _pose(draw: _Draw) -> _Canvas:
    """Place the head: shifted, rotated in the plane, scaled, more or less sharp."""
    pixel = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    angle, size = draw.around(0, 0.16), _HALF_HEAD * draw.between(0.82, 1.12)
    x = (pixel[None, None, :] - draw.around(0, 2.2)) / size
    y = (pixel[None, :, None] - draw.around(0, 2.2)) / size
    cosine, sine = np.cos(angle), np.sin(angle)
    grey = np.broadcast_to(draw.between(20, 235), (len(angle), SIDE, SIDE)).astype(np.float32)
    across = draw.around(0, 25)
    grey += across * x
    return _Canvas(grey, cosine * x + sine * y, cosine * y - sine * x, size * draw.between(0.45, 1.0))


def _ellipse(canvas: _Canvas, x: Array | float, y: Array | float, width: Array | float, height: Array) -> Array:
    """The depth inside an ellipse with these half axes, approximately correct near its edge."""
    distance = np.sqrt(((canvas.x - x) / width) ** 2 + ((canvas.y - y) / height) ** 2)
    return (1 - distance) * np.minimum(width, height)


def _head(canvas: _Canvas, draw: _Draw, skin: Array, hair_tone: Array) -> None:
    width, hairline = draw.between(0.70, 0.86), draw.between(-0.78, -0.55)
    long_hair = draw.chance(0.4)
    hair = np.minimum(_ellipse(canvas, 0, -0.12, width + 0.14, draw.between(0.96, 1.06)), 0.15 + long_hair - canvas.y)
    canvas.paint(hair, hair_tone, draw.chance(0.9))
    canvas.paint(np.minimum(0.34 - np.abs(canvas.x), canvas.y - 0.5), skin * 0.8)
    head = _ellipse(canvas, 0, 0, width, np.ones_like(width))
    canvas.paint(head, skin)
    fringe = hairline + draw.around(0, 0.18) * canvas.x - canvas.y
    canvas.paint(np.minimum(head, fringe), hair_tone, draw.chance(0.85))


def _nose(face: _Canvas, draw: _Draw, skin: Array, features: dict[str, Array]) -> None:
    tip, side = draw.between(0.16, 0.24), np.where(draw.chance(0.5) > 0, 1.0, -1.0).astype(np.float32)
    shadow = np.minimum(0.03 - np.abs(face.x - side * 0.07), np.minimum(face.y + 0.15, tip - face.y))
    face.paint(shadow, skin * 0.72)
    for sign in (-1, 1):
        face.paint(_ellipse(face, sign * 0.075, tip, 0.055, np.full_like(tip, 0.04)), skin * 0.45)
    wrinkles = np.clip(features["wrinkles"], 0, 1)
    for level in (-0.14, -0.04, 0.06):
        stroke = 0.022 - np.abs(face.y - level - 0.6 * np.abs(face.x))
        face.paint(np.minimum(stroke, 0.16 - np.abs(face.x)), skin * 0.55, wrinkles)
    folds = np.clip(features["folds"], 0, 1)
    away = np.abs(np.abs(face.x) - 0.20 - 0.55 * (face.y - tip))
    face.paint(np.minimum(0.028 - away, np.minimum(face.y - tip, tip + 0.30 - face.y)), skin * 0.62, folds)


def _mouth(face: _Canvas, draw: _Draw, skin: Array, features: dict[str, Array]) -> None:
    width = np.maximum(features["mouth_width"], 0.14)
    along = np.clip(face.x / width, -1, 1)
    bow = 1 - along * along
    middle = draw.around(0.50, 0.025) + features["mouth_corners"] * (bow - 0.5) + features["lopsided"] * along
    opening = np.sqrt(bow)
    top = middle - np.maximum(features["mouth_top"], 0.012) * opening
    bottom = middle + np.maximum(features["mouth_bottom"], 0.012) * opening
    lip, ends = draw.between(0.035, 0.065) * (0.5 + 0.5 * bow), width - np.abs(face.x)
    lips = np.minimum(np.minimum(face.y - top + lip, bottom + lip - face.y), ends + 0.02)
    face.paint(lips, skin * draw.between(0.58, 0.78))
    inside = np.minimum(np.minimum(face.y - top, bottom - face.y), ends)
    face.paint(inside, skin * 0.18)
    bite = np.minimum(inside - 0.01, middle + 0.05 - face.y)
    face.paint(bite, np.minimum(skin + 60, 250), np.clip(features["teeth"], 0, 1))


def _eyes(face: _Canvas, draw: _Draw, skin: Array, features: dict[str, Array]) -> None:
    apart, width = draw.between(0.31, 0.38), draw.between(0.14, 0.18)
    height = 0.095 * np.clip(features["eye_open"], 0.25, 1.7)
    gaze, iris = draw.around(0, 0.025), draw.between(15, 70)
    level, droop = draw.around(-0.17, 0.02), np.clip(features["brow_slope"], -0.1, 0.15)
    for sign in (-1, 1):
        lean = np.asarray(0.45 * droop * (sign * face.x - apart) / width, dtype=np.float32)
        slanted = _Canvas(face.grey, face.x, face.y - lean, face.sharpness)
        ball = _ellipse(slanted, sign * apart, level, width, height)
        face.paint(ball + 0.045, skin * 0.50)
        face.paint(ball, np.minimum(skin + 70, 245))
        pupil = _ellipse(face, sign * apart + gaze, level, 0.075, np.full_like(level, 0.085))
        face.paint(np.minimum(pupil, ball), iris)


def _brows(face: _Canvas, draw: _Draw, tone: Array, features: dict[str, Array]) -> None:
    apart, half, thick = draw.between(0.32, 0.38), draw.between(0.17, 0.22), draw.between(0.035, 0.06)
    level = draw.around(-0.41, 0.02) - features["brow_raise"]
    for sign in (-1, 1):
        along = np.clip((sign * face.x - apart) / half, -1, 1)
        line = level + features["brow_slope"] * along - features["brow_arch"] * (1 - along * along)
        reach = half - np.abs(sign * face.x - apart)
        face.paint(np.minimum(thick - np.abs(face.y - line), reach), tone)


def _beard_or_glasses(face: _Canvas, draw: _Draw, skin: Array) -> None:
    rim = draw.between(0.20, 0.24)
    frames = np.minimum(0.03 - np.abs(_ellipse(face, 0.35, -0.16, rim, rim)), face.x)
    other = np.minimum(0.03 - np.abs(_ellipse(face, -0.35, -0.16, rim, rim)), -face.x)
    face.paint(np.maximum(frames, other), 25.0, draw.chance(0.12))
    beard = np.minimum(_ellipse(face, 0, 0.62, 0.55, np.full_like(rim, 0.40)), face.y - 0.70)
    face.paint(beard, skin * 0.45, draw.chance(0.15) * 0.8)


def _photograph(canvas: _Canvas, draw: _Draw) -> NDArray[np.uint8]:
    """Add light from a random direction, a bar over some faces, and a sensor's noise."""
    light = 1 + draw.around(0, 0.25) * canvas.x + draw.around(0, 0.12) * canvas.y
    grey = canvas.grey * np.clip(light, 0.25, 1.8)
    x, y = draw.between(-1.0, 1.0), draw.between(-1.0, 1.0)
    bar = np.minimum(draw.between(0.06, 0.3) - np.abs(canvas.x - x), draw.between(0.06, 0.3) - np.abs(canvas.y - y))
    _Canvas(grey, canvas.x, canvas.y, canvas.sharpness).paint(bar, draw.between(0, 255), draw.chance(0.25))
    grey = 127 + draw.between(0.5, 1.1) * (grey - 127) + draw.around(0, 15)
    grey += draw.between(3, 18) * draw.rng.standard_normal(grey.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(grey), 0, 255), dtype=np.uint8)
