"""Exports a run's net as one file for other programs, checked against the net, with a model card."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fer_data import Faces
from sweeps.errors import InputError
from sweeps.runs import Run
from sweeps.use.about import about_run
from sweeps.use.card import card
from sweeps.use.classifier import BEFORE, LOOKED, OnnxClassifier, PackedClassifier, inputs_of
from sweeps.use.packing import pack
from tracking.metrics.scores import Interval, paired_difference_interval
from tracking.record.files import write_bytes

if TYPE_CHECKING:
    from fer_models.exported_graph import ExportedGraph

Format = Literal["onnx", "torch-export", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
CHECKED = 200
"""Number of validation faces on which the file must agree with the net."""
TOLERANCE = 1e-4

_CALIBRATED = 256
_OPSET = 20

Answering = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """The file, its card, the largest difference of probabilities, and the change of accuracy by int8."""

    path: Path
    card: Path
    largest_difference: float
    checked: int
    change: Interval | None
    before: tuple[str, ...]
    """Preprocessings that are not in the file."""


def export_run(run: Run, kind: Format, path: Path | None = None, *, int8: bool = False) -> Exported:
    """Write a run's net to `path`, by default NAME-NUMBER with the format's suffix in the working folder.

    The file is written only after it was loaded again and agrees with the net: each probability to 1e-4 on 200
    validation faces. For int8, which rounds weights and activations, the change of accuracy on the validation split is
    measured instead.

    Raises:
        InputError: int8 with another format than ONNX, the run's weights or faces are gone, or the file disagrees.
        ModelError: a file of the net is damaged.
    """
    if int8 and kind != "onnx":
        raise InputError(f"--int8 with --format {kind}: int8 is only for onnx")
    path = path or Path(f"{run.name.replace('/', '-')}{'-int8' if int8 else ''}{SUFFIXES[kind]}")
    if path.suffix != SUFFIXES[kind]:
        raise InputError(f"--file {path}: a file of --format {kind} ends with {SUFFIXES[kind]}")
    if not path.parent.is_dir():
        raise InputError(f"--file {path}: there is no folder {path.parent}")
    about, faces = about_run(run), run.raw_faces()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch:
        pack(run, Path(scratch) / "files")
        net = PackedClassifier(Path(scratch) / "files", about)
        made = Path(scratch) / path.name
        answering = _WRITERS[kind](net, made)
        if int8:
            made = _as_int8(made, faces)
            answering = OnnxClassifier(made).probabilities
        some = np.asarray(faces.val.images[:CHECKED], np.uint8)
        difference = float(np.abs(answering(some) - net.probabilities(some)).max())
        if difference > TOLERANCE and not int8:
            raise InputError(
                f"{run.name}: as {kind} its probabilities differ by up to {difference:.1e} on {len(some)} validation "
                f"faces, more than {TOLERANCE:.0e}; nothing was written"
            )
        change = _change(net, answering, faces) if int8 else None
        before = () if kind == "safetensors" else _graph(net).before
        made.replace(path)
    beside = path.with_name(f"{path.name}.md")
    write_bytes(beside, card(run, about, faces, path, kind, change, before).encode())
    return Exported(path, beside, difference, len(some), change, before)


def _graph(net: PackedClassifier) -> ExportedGraph:
    from fer_models.exported_graph import ExportedGraph

    return ExportedGraph(net.nets.members, net.nets.mean_image)


def _metadata(net: PackedClassifier) -> dict[str, str]:
    return {
        "about": net.about.model_dump_json(),
        "classes": json.dumps(net.classes),
        "side": str(net.side),
        "resize_method": net.resize_method,
        BEFORE: json.dumps(_graph(net).before),
    }


def _examples(net: PackedClassifier) -> tuple[Any, ...]:
    """Example inputs of the graph: two faces, and these faces under each preprocessing before the graph."""
    import torch

    shape = (2, net.side, net.side)
    return torch.zeros(shape, dtype=torch.uint8), *(torch.zeros(shape) for _ in _graph(net).before)


def write_onnx(net: PackedClassifier, path: Path) -> Answering:
    """Write the nets with their Grad-CAM as one graph. Returns a function that runs the file."""
    import warnings

    import onnx
    import torch

    from fer_models.exported_graph import explained_graph

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    graph, examples, many = _graph(net), _examples(net), {0: torch.export.Dim("n")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            explained_graph(graph, *examples), examples, dynamo=True, opset_version=_OPSET, verbose=False,
            input_names=["faces", *graph.before], output_names=["probabilities", LOOKED],
            dynamic_shapes=tuple(many for _ in examples),
        )  # fmt: skip
    model = program.model_proto
    onnx.helper.set_model_props(model, _metadata(net))
    onnx.save(model, str(path))
    return OnnxClassifier(path).probabilities


def _write_torch_export(net: PackedClassifier, path: Path) -> Answering:
    import torch

    graph, (faces, *more), many = _graph(net), _examples(net), {0: torch.export.Dim("n")}
    with torch.no_grad():
        shapes = (many, tuple(many for _ in more)) if more else (many,)
        program = torch.export.export(graph, (faces, *more), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={"about.json": json.dumps(_metadata(net))})
    loaded = torch.export.load(path).module()

    def answering(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        inputs = inputs_of(faces, graph.before).values()
        with torch.inference_mode():
            return np.asarray(loaded(*map(torch.tensor, inputs)).numpy(), np.float32)

    return answering


def _write_safetensors(net: PackedClassifier, path: Path) -> Answering:
    """Write all tensors to one file, those of member 0 as `0.NAME`, with the nets' settings as metadata."""
    from safetensors.numpy import save_file
    from safetensors.torch import load_file

    from fer_data.augmentation.preprocess import preprocess

    tensors = {
        f"{number}.{name}": value.contiguous().numpy()
        for number, member in enumerate(net.nets.members)
        for name, value in member.net.state_dict().items()
    }
    save_file(tensors, path, {**_metadata(net), "model": json.dumps(net.nets.about)})
    read = load_file(path)
    for number, member in enumerate(net.nets.members):
        prefix = f"{number}."
        member.net.load_state_dict(
            {name.removeprefix(prefix): value for name, value in read.items() if name.startswith(prefix)}
        )
    return lambda faces: net.nets.predict(faces, preprocess)


_WRITERS: dict[Format, Callable[[PackedClassifier, Path], Answering]] = {
    "onnx": write_onnx,
    "torch-export": _write_torch_export,
    "safetensors": _write_safetensors,
}


def _as_int8(path: Path, faces: Faces) -> Path:
    """Quantise weights and activations to 8 bits, with the ranges of activations from training faces."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    images = np.asarray(faces.train.images[:: max(1, len(faces.train) // _CALIBRATED)][:_CALIBRATED], np.uint8)
    before = OnnxClassifier(path).before
    batches = iter([inputs_of(images[start : start + 32], before) for start in range(0, len(images), 32)])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(batches, None)

    fused, made = path.with_name(f"fused-{path.name}"), path.with_name(f"int8-{path.name}")
    _fuse_transposes(path, fused)
    logging.getLogger().setLevel(logging.ERROR)  # it prints advice that does not apply to this graph
    quantize_static(
        str(fused), str(made), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv", "Gemm"],
    )  # fmt: skip
    return made


def _fuse_transposes(path: Path, fused: Path) -> None:
    """Let each fully connected layer read its weights as they are stored.

    PyTorch writes a transpose before each; the quantiser leaves such weights in fp32.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # ONNX's operators only
    options.optimized_model_filepath = str(fused)
    # Constant folding would store the transposed weights beside the weights, which the Grad-CAM reads.
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
    )


def _change(net: PackedClassifier, answering: Answering, faces: Faces) -> Interval:
    """Accuracy of the file minus accuracy of the net, on the validation split."""
    images, labels = np.asarray(faces.val.images, np.uint8), faces.val.labels.astype(np.int64)
    return paired_difference_interval(labels, answering(images).argmax(1), net.probabilities(images).argmax(1))
