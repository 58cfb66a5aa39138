"""An MLflow model of a trial's net or of an ensemble: images in, class probabilities out.

MLflow copies this file into the model and runs it to load the model (models from code), so nothing is pickled. The
model also has copies of fer_data and fer_models, and this file may use only those and the folder written by `register`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd


class ExpressionModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Predicts raw images: converts them to grey, resizes and preprocesses them."""

    def load_context(self, context: Any) -> None:
        """Build the nets and load their weights. Raises ModelError for a damaged file."""
        from fer_models.packed_nets import PackedNets

        self._nets = PackedNets(Path(context.artifacts["files"]))

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,  # the only annotation that MLflow knows
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Probabilities of grey [n, height, width] or RGB [n, height, width, 3] images: one row per image, one column
        per class.

        Raises DataError unless it is such an array with whole numbers 0..255.
        """
        import torch

        from fer_data.augmentation.preprocess import preprocess
        from fer_data.images.raw_images import grey_faces

        nets = self._nets
        faces = grey_faces(model_input, nets.mean_image.shape, nets.resize_method)
        answers = nets.predict(faces, preprocess, "cuda" if torch.cuda.is_available() else "cpu")
        return pd.DataFrame(answers, columns=list(nets.classes))


mlflow.models.set_model(ExpressionModel())
