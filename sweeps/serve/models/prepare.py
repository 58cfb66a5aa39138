"""Tasks of the web application in a separate process, since they need MLflow or PyTorch.

    python -m sweeps.serve.models.prepare [--tracking-uri URI] OUT
    python -m sweeps.serve.models.prepare [--tracking-uri URI] OUT MODEL FILE

The first prints the registered models as JSON, the second exports a net to FILE.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fer_common.errors import run_command
from fer_data.images.resizing import all_resized
from fer_data.sources.synthetic import draw_faces
from sweeps.errors import InputError
from sweeps.use.classifier import PackedClassifier
from sweeps.use.export import TOLERANCE, write_onnx
from sweeps.use.find_model import find_model
from tracking.mlflow_sync.default_store import sqlite_path
from tracking.mlflow_sync.models import registered_models
from tracking.mlflow_sync.upkeep import opened
from tracking.mlflow_sync.uri import resolve_tracking_uri

_CHECKED = 70
"""Number of synthetic faces on which the file must agree with the net."""


def main(argv: list[str]) -> int:
    """Do the task. Returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracking-uri")
    parser.add_argument("out", type=Path)
    parser.add_argument("model", nargs="?")
    parser.add_argument("file", type=Path, nargs="?")
    return run_command(argv, lambda: _prepare(parser.parse_args(argv)), lambda line: print(line, file=sys.stderr))  # noqa: T201


def _prepare(given: argparse.Namespace) -> int:
    if given.model is None:
        print(json.dumps(_registered(resolve_tracking_uri(given.tracking_uri, given.out))))  # noqa: T201
    else:
        _write_net(find_model(given.model, given.out, given.tracking_uri), given.file)
    return 0


def _registered(tracking_uri: str) -> list[dict[str, Any]]:
    path = sqlite_path(tracking_uri)
    if path is not None and not path.is_file():
        return []  # no sweep has created the store yet
    with opened(tracking_uri) as client:
        return [{"name": name, "version": [one.name, one.number]} for name, one in registered_models(client)]


def _write_net(net: object, path: Path) -> None:
    """Write the file, only if it agrees with the net."""
    assert isinstance(net, PackedClassifier)
    drawn = draw_faces(np.arange(_CHECKED, dtype=np.uint8) % 7, np.random.default_rng(0))
    faces = np.asarray(all_resized(drawn, net.side, "area"), np.uint8)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch:
        made = Path(scratch) / path.name
        difference = float(np.abs(write_onnx(net, made)(faces) - net.probabilities(faces)).max())
        if difference > TOLERANCE:
            raise InputError(f"as a graph its probabilities differ by up to {difference:.1e}")
        made.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
