"""Detects the faces in a photograph with MTCNN (Zhang et al. 2016).

Three nets run one after the other: the first is applied to every position of an image pyramid, the other two refine its
candidates.

Legend: n candidates; a box is left, top, right, bottom in pixels, and a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_data.photos.mtcnn_nets import CELL, SIDES, STRIDE, propose, refine
from fer_data.photos.photo import Photo, Rgb

Boxes = NDArray[np.float64]
"""[n, 5]"""
Pyramid = Sequence[tuple[float, Rgb]]
"""Images of decreasing size, each with its scale."""

MIN_FACE = 24
"""Side of the smallest face that can be found, in pixels of an image with at most 1,280 pixels per side."""

_LONGEST = 1280
_SHRINK = 0.709  # from one image of the pyramid to the next: half of the area
_LEAST = (0.6, 0.7, 0.8)
"""Score below which each net drops a candidate."""
_AT_ONCE = 32
"""Number of candidates that a net processes at once: the activations of so many fit into a core's cache."""
_DETAIL = 2
_DARK, _MOST_GAIN = 160, 8


@dataclass(frozen=True)
class Box:
    """The position of a face, in pixels of the upright photograph, and the detector's score."""

    left: float
    top: float
    width: float
    height: float
    score: float


def find_faces(photo: Photo) -> list[Box]:
    """The faces of a photograph, the largest first."""
    rgb, shrunk = _at_most(photo.rgb, _LONGEST)
    pyramid = _pyramid(_lit(rgb))
    boxes = _refined(pyramid, _refined(pyramid, _proposed(pyramid), "rnet", _LEAST[1]), "onet", _LEAST[2])
    scale = photo.scale * shrunk
    found = [
        Box(left / scale, top / scale, (right - left) / scale, (bottom - top) / scale, score)
        for left, top, right, bottom, score in boxes.tolist()
    ]
    return sorted(found, key=lambda box: -box.width * box.height)


def _pyramid(rgb: Rgb) -> Pyramid:
    """The image, followed by the images for the first net, each with its scale and made from the one before it."""
    pictures, scale = [(1.0, rgb)], CELL / MIN_FACE
    while min(rgb.shape[:2]) * scale >= CELL:
        width, height = (int(np.ceil(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
        pictures.append((scale, _resized(pictures[-1][1], width, height)))
        scale *= _SHRINK
    return pictures


def _proposed(pyramid: Pyramid) -> Boxes:
    """The candidates of the first net at every scale."""
    found = [np.empty((0, 9))]
    for scale, picture in pyramid[1:]:
        regression, probability = propose(picture)
        row, column = np.nonzero(probability >= _LEAST[0])
        corner = np.stack([column, row], 1) * STRIDE
        here = np.hstack([
            (corner + 1) / scale, (corner + CELL) / scale, probability[row, column, None], regression[row, column]
        ])  # fmt: skip
        found.append(here[_distinct(here[:, :5], 0.5)])
    boxes = np.concatenate(found)
    boxes = boxes[_distinct(boxes[:, :5], 0.7)]
    return _moved(boxes[:, :5], boxes[:, 5:])


def _refined(pyramid: Pyramid, boxes: Boxes, net: str, least: float) -> Boxes:
    """The candidates that a later net keeps, with its corrections of their boxes."""
    boxes, kept = _squares(boxes), [np.empty((0, 5))]
    for start in range(0, len(boxes), _AT_ONCE):
        some = boxes[start : start + _AT_ONCE]
        regression, sure = refine(net, _windows(pyramid, some, SIDES[net]))
        keep = sure > least
        kept.append(_moved(np.hstack([some[keep, :4], sure[keep, None]]), regression[keep]))
    found = np.concatenate(kept)
    return found[_outermost(found, 0.7) if net == "onet" else _distinct(found, 0.7)]


def _moved(boxes: Boxes, regression: NDArray[np.floating]) -> Boxes:
    """The boxes with each side moved by a fraction of the box's width or height."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shift = regression * np.stack([width, height, width, height], 1)
    return np.hstack([boxes[:, :4] + shift, boxes[:, 4:]])


def _squares(boxes: Boxes) -> Boxes:
    """The smallest squares around the boxes, with the same centres, on whole pixels."""
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).max(1, keepdims=True, initial=1) / 2
    return np.hstack([np.trunc(centre - half), np.trunc(centre + half), boxes[:, 4:]])


def _distinct(boxes: Boxes, most: float) -> list[int]:
    """Indices of the boxes that no better box overlaps by more than `most` of their union, the best first."""
    import cv2

    corners = np.hstack([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]])
    return list(cv2.dnn.NMSBoxes(corners, boxes[:, 4].astype(np.float32), 0.0, most))  # type: ignore[arg-type]


def _outermost(boxes: Boxes, most: float) -> list[int]:
    """Indices of the boxes that no better box overlaps by more than `most` of the smaller box, the best first."""
    left, top, right, bottom, score = boxes.T
    area = (right - left) * (bottom - top)
    order, kept = np.argsort(-score, kind="stable"), []
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        across = np.minimum(right[first], right[rest]) - np.maximum(left[first], left[rest])
        down = np.minimum(bottom[first], bottom[rest]) - np.maximum(top[first], top[rest])
        order = rest[across.clip(0) * down.clip(0) <= most * np.minimum(area[first], area[rest])]
    return kept


def _lit(rgb: Rgb) -> Rgb:
    """Brighten a dark image, so that its brightest parts are bright."""
    brightest = np.percentile(rgb[::4, ::4], 99)
    gain = min(_DARK / max(brightest, 1), _MOST_GAIN)
    return rgb if gain <= 1 else (rgb * gain).clip(0, 255).astype(np.uint8)


def _windows(pyramid: Pyramid, boxes: Boxes, side: int) -> NDArray[np.uint8]:
    """The pixels in squares as [n, side, side, 3], black outside the image.

    They come from the smallest image of the pyramid that has at least two pixels per pixel of the window.
    """
    import cv2

    scales = np.array([scale for scale, _ in pyramid])
    enough = scales * (boxes[:, 2] - boxes[:, 0])[:, None] >= _DETAIL * side
    places = enough.sum(1).clip(1) - 1  # the scales decrease
    corners = np.rint(scales[places, None] * boxes[:, :4]).astype(int)
    windows = np.empty((len(boxes), side, side, 3), np.uint8)
    for window, place, corner in zip(windows, places.tolist(), corners.tolist(), strict=True):
        cv2.resize(_cut(pyramid[place][1], *corner), (side, side), dst=window, interpolation=cv2.INTER_AREA)
    return windows


def _cut(rgb: Rgb, left: int, top: int, right: int, bottom: int) -> Rgb:
    """The pixels in a rectangle, black outside the image."""
    height, width = rgb.shape[:2]
    if left >= 0 and top >= 0 and left < right <= width and top < bottom <= height:
        return rgb[top:bottom, left:right]
    window = np.zeros((max(bottom - top, 1), max(right - left, 1), 3), np.uint8)
    x, y = slice(max(left, 0), min(right, width)), slice(max(top, 0), min(bottom, height))
    inside = rgb[y, x]
    window[y.start - top :, x.start - left :][: inside.shape[0], : inside.shape[1]] = inside
    return window


def _at_most(rgb: Rgb, longest: int) -> tuple[Rgb, float]:
    """The image, reduced to at most `longest` pixels per side, and the factor."""
    scale = longest / max(rgb.shape[:2])
    if scale >= 1:
        return rgb, 1.0
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    return _resized(rgb, width, height), width / rgb.shape[1]


def _resized(rgb: Rgb, width: int, height: int) -> Rgb:
    import cv2

    # Down to half of the size each pixel counts with bilinear interpolation too, which takes a fifth of the time.
    how = cv2.INTER_LINEAR if width > rgb.shape[1] / 2 else cv2.INTER_AREA
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)
