"""Finds the net that `--model` names: a run, the champion, a registered model, or an exported file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fer_common.errors import did_you_mean, nearest
from sweeps.errors import InputError
from sweeps.runs import find_run, sweep_names
from sweeps.use.about import about_run, about_version
from sweeps.use.classifier import Classifier, OnnxClassifier, PackedClassifier
from sweeps.use.packing import pack
from tracking.mlflow_sync.uri import resolve_tracking_uri

CHAMPION = "champion"


def find_model(reference: str, out: Path, tracking_uri: str | None = None) -> Classifier:
    """Load a net.

    Args:
        reference: FILE.onnx; `champion`, the registered champion that is best on its validation split;
            `models:/NAME@alias` or `models:/NAME/3`; NAME/3, NAME or an MLflow run id.
        out: the folder of all sweeps.
        tracking_uri: of MLflow; None for the default.

    Raises:
        InputError, TrackingError, ModelError, DataError: the net does not exist or cannot be loaded.
    """
    if reference.endswith(".onnx"):
        return OnnxClassifier(Path(reference))
    if Path(reference).is_file():
        raise InputError(f"--model {reference}: a net in a file is an ONNX file of 'python -m sweeps export'")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "files"
        if reference != CHAMPION and not reference.startswith("models:"):
            if nearest(reference, [CHAMPION]) and reference not in (names := sweep_names(out)):
                raise InputError(f"no net '{reference}'{did_you_mean(reference, [CHAMPION, *names])}")
            run = find_run(reference, out, tracking_uri, unfinished=True)
            pack(run, folder)
            return PackedClassifier(folder, about_run(run))
        from tracking.mlflow_sync.models import fetch_files

        version = fetch_files(reference, resolve_tracking_uri(tracking_uri, out), folder)
        return PackedClassifier(folder, about_version(version.name, version.number, version.tags))
