"""An MLflow model of a trial's net or of an ensemble: images in, class probabilities out.

MLflow copies this file into the model and runs it there to load it (models from code), so nothing is pickled. It is
beside copies of fer_data and fer_models, and must do with those and with the folder that `registering` packed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd


class ExpressionModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Predictions for raw images: it converts to grey, resizes and preprocesses."""

    def load_context(self, context: Any) -> None:
        """Build the nets and fill them with their weights. Raises ModelError for a file that is damaged."""
        from fer_models.packed_nets import PackedNets

        self._nets = PackedNets(Path(context.artifacts["files"]))

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,  # MLflow knows this annotation alone
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Probabilities of grey [n, height, width] or RGB [n, height, width, 3] images: a row each, columns by class.

        Raises DataError for anything but such an array of whole numbers 0..255.
        """
        import torch

        from fer_data.augmentation.preprocess import preprocess
        from fer_data.images.raw_images import grey_faces

        nets = self._nets
        faces = grey_faces(model_input, nets.mean_image.shape, nets.resize_method)
        answers = nets.predict(faces, preprocess, "cuda" if torch.cuda.is_available() else "cpu")
        return pd.DataFrame(answers, columns=list(nets.classes))


mlflow.models.set_model(ExpressionModel())
