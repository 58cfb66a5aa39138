"""An MLflow model of a trial's net, or of several that answer as one: images in, class probabilities out.

MLflow copies this file into the model and runs it there to load it (models from code), so nothing is pickled. It lies
beside copies of fer_data and fer_models, and must do with those and with the folder that `registering` packed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from fer_models import Views

DESCRIPTION = "model.json"
MEAN_IMAGE = "mean_image.npy"


@dataclass(frozen=True)
class _Member:
    net: nn.Module
    preprocess: str
    views: Views
    weight: float


class ExpressionModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Predictions for images as they come: grey conversion, size and preprocessing are its own affair."""

    def load_context(self, context: Any) -> None:
        """Build the nets and fill them with their weights. Raises ModelError for a file that is damaged."""
        folder = Path(context.artifacts["files"])
        self._about: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        self._mean_image = np.load(folder / MEAN_IMAGE, allow_pickle=False)
        self._members = [self._load(folder, member) for member in self._about["members"]]

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,  # MLflow knows this annotation alone
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Probabilities of grey [n, height, width] or RGB [n, height, width, 3] images: a row each, a column a class.

        Raises DataError for what is no such array of whole numbers 0..255.
        """
        from fer_data.images.raw_images import grey_faces

        faces = grey_faces(model_input, self._mean_image.shape, self._about["resize_method"])
        parts = [member.weight * self._answers(member, faces) for member in self._members]
        return pd.DataFrame(np.asarray(np.sum(parts, axis=0), np.float32), columns=self._about["classes"])

    def _load(self, folder: Path, member: dict[str, Any]) -> _Member:
        import torch
        from pydantic import TypeAdapter

        from fer_models import NetConfig
        from fer_models.nets.registry import build
        from fer_models.training.weights import load_weights

        config = TypeAdapter[Any](NetConfig).validate_python(member["net"])
        net = build(
            config, classes=len(self._about["classes"]), mean_image=self._mean_image, generator=torch.Generator()
        )
        load_weights(net, folder / member["weights"])
        return _Member(net, member["preprocess"], member["views"], member["weight"])

    def _answers(self, member: _Member, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        from fer_data.augmentation.preprocess import preprocess
        from fer_models.training.evaluate import predict

        if not len(faces):
            return np.empty((0, len(self._about["classes"])), np.float32)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        ready = faces if member.preprocess == "none" else preprocess(faces, member.preprocess, self._mean_image)
        return predict(member.net, ready, device=device, views=member.views)


mlflow.models.set_model(ExpressionModel())
