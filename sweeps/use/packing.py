"""Writes a run's nets into a folder with everything that predictions need."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_models.packed_nets import DESCRIPTION, MEAN_IMAGE
from sweeps.errors import InputError
from sweeps.run_kinds import SvmHead
from sweeps.runs import Run
from tracking.record.files import write_json


def pack(run: Run, folder: Path) -> NDArray[np.uint8]:
    """Write the files of `PackedNets` into `folder`. Returns the mean face as an example input that shows no person.

    Raises:
        InputError: the run's weights are gone, its faces are gone or have changed, or it is a support vector machine.
    """
    faces = run.raw_faces()
    folder.mkdir()
    mean_image = faces.mean_image()
    np.save(folder / MEAN_IMAGE, mean_image, allow_pickle=False)
    about = {
        "classes": faces.classes,
        "resize_method": run.spec.data.resize_method,
        "members": [_member(*pair, folder) for pair in enumerate(run.nets())],
    }
    write_json(folder / DESCRIPTION, about)
    return np.rint(mean_image).astype(np.uint8)


def _member(number: int, member: tuple[Run, float], folder: Path) -> dict[str, Any]:
    run, weight = member
    if isinstance(run.kind, SvmHead):
        raise InputError(
            f"{run.name}: a support vector machine cannot be registered or exported; its net can: {run.kind.member}"
        )
    config, name = run.config, f"{number}.safetensors"
    shutil.copyfile(run.weights_file(), folder / name)
    return {
        "weights": name,
        "weight": weight,
        "net": config.net.model_dump(mode="json"),
        "preprocess": config.preprocess,
        "views": config.recipe.views,
    }
