"""Classifiers of faces: nets run by PyTorch, or an exported file run by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fer_data.options import ResizeMethod
from sweeps.errors import InputError
from sweeps.use.about import About

FACES_AT_ONCE = 256
LOOKED = "looked"
"""The output of an exported graph with the Grad-CAM of the most probable class."""
BEFORE = "preprocessed_before"
"""Metadata key of an exported file: preprocessings that its graph cannot contain, each an input of that name."""


class Classifier(Protocol):
    """Predicts grey faces [n, side, side]."""

    about: About
    classes: tuple[str, ...]
    side: int
    resize_method: ResizeMethod
    """How the faces were resized that the net was trained on."""

    def probabilities(self, faces: NDArray[np.uint8], *, one_core: bool = False) -> NDArray[np.float32]:
        """[n, classes]. With `one_core` PyTorch leaves the other cores to other threads of this process."""


def inputs_of(faces: NDArray[np.uint8], before: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The inputs of an exported graph: the faces, and the faces under each preprocessing in `before`."""
    if not before:
        return {"faces": faces}
    from fer_data.augmentation.preprocess import preprocess

    return {"faces": faces} | {name: preprocess(faces, name) for name in before}


class PackedClassifier:
    """The nets in the folder of a registered model, run by PyTorch."""

    def __init__(self, folder: Path, about: About) -> None:
        from fer_models.packed_nets import PackedNets

        self.about = about
        self.nets = PackedNets(folder)
        self.classes = self.nets.classes
        self.side = int(self.nets.mean_image.shape[0])
        self.resize_method: ResizeMethod = self.nets.resize_method

    def probabilities(self, faces: NDArray[np.uint8], *, one_core: bool = False) -> NDArray[np.float32]:
        """[n, classes]. With `one_core` PyTorch leaves the other cores to other threads of this process."""
        import torch

        from fer_data.augmentation.preprocess import preprocess

        threads = torch.get_num_threads()
        torch.set_num_threads(1 if one_core else threads)
        try:
            return self.nets.predict(faces, preprocess)
        finally:
            torch.set_num_threads(threads)


class OnnxClassifier:
    """A file that `python -m sweeps export` wrote. Raises InputError for any other."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = False  # it would keep the memory of the largest batch, and saves no time
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads need the cores
        if not path.is_file():
            raise InputError(f"--model {path}: no such file; write it with: python -m sweeps export RUN --format onnx")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            known = self._session.get_modelmeta().custom_metadata_map
            self.about = About.model_validate_json(known["about"])
            self.classes = tuple(json.loads(known["classes"]))
            self.side = int(known["side"])
            self.resize_method: ResizeMethod = known.get("resize_method", "area")  # earlier versions did not write it
            self.before: tuple[str, ...] = tuple(json.loads(known.get(BEFORE, "[]")))
        except Exception as error:  # ONNX Runtime raises many types for damaged or foreign files
            raise InputError(
                f"--model {path}: not a net that 'python -m sweeps export' wrote ({type(error).__name__})"
            ) from error

    def probabilities(self, faces: NDArray[np.uint8], *, one_core: bool = False) -> NDArray[np.float32]:
        """[n, classes]."""
        parts: list[Any] = [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(faces), FACES_AT_ONCE):
            parts += self._run(["probabilities"], faces[start : start + FACES_AT_ONCE])
        return np.concatenate(parts)

    def explained(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Probabilities, and the Grad-CAM of the most probable class: [n, side, side] in 0..1.

        None instead of the second if the file was exported by a version whose graphs did not have it.
        """
        if LOOKED not in (output.name for output in self._session.get_outputs()):
            return self.probabilities(faces), None
        parts = [
            self._run(["probabilities", LOOKED], faces[start : start + FACES_AT_ONCE])
            for start in range(0, len(faces), FACES_AT_ONCE)
        ]
        probabilities, maps = zip(*parts, strict=True)
        return np.concatenate(probabilities), np.concatenate(maps)

    def _run(self, outputs: list[str], faces: NDArray[np.uint8]) -> list[Any]:
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True  # outputs that are not requested are not computed
        given: list[Any] = self._session.run(outputs, inputs_of(faces, self.before), options)
        return given
