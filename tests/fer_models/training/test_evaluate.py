"""The views of a face, against crops that are cut and averaged by hand."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from fer_models import LeNetConfig, Recipe
from fer_models.configs.recipe import Views
from fer_models.nets.registry import build
from fer_models.training.evaluate import predict
from fer_models.training.fit import Batches, fit
from fer_models.training.state import new_state

Faces = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def lenet() -> nn.Module:
    mean = np.full((48, 48), 128, dtype=np.float32)
    return build(LeNetConfig(), classes=7, mean_image=mean, generator=torch.Generator().manual_seed(0))


def test_mirrored_faces_are_averaged_with_the_plain_ones(faces: Faces) -> None:
    net = lenet()
    both = (predict(net, faces[0]) + predict(net, np.ascontiguousarray(faces[0][:, :, ::-1]))) / 2
    np.testing.assert_allclose(predict(net, faces[0], views="mirror", batch_size=10), both, rtol=1e-5)


def test_ten_crops_are_the_mean_over_ten_crops_made_by_hand(faces: Faces) -> None:
    net = lenet()
    wide = np.pad(faces[0], ((0, 0), (4, 4), (4, 4)), mode="edge")
    corners = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
    crops = [wide[:, top : top + 48, left : left + 48] for top, left in corners]
    crops += [crop[:, :, ::-1] for crop in crops]
    mean = np.mean([predict(net, np.ascontiguousarray(crop)) for crop in crops], axis=0)
    ten = predict(net, faces[0], views="ten_crop")
    np.testing.assert_allclose(ten, mean, rtol=1e-5)
    np.testing.assert_allclose(ten.sum(1), 1, rtol=1e-5)
    assert np.abs(ten - predict(net, faces[0])).max() > 1e-3


@pytest.mark.parametrize("views", ["plain", "mirror", "ten_crop"])
def test_validation_sees_a_face_in_the_views_of_the_recipe(
    views: Views, faces: Faces, batches_of: Callable[..., Batches]
) -> None:
    recipe = Recipe(lr=0.001, views=views)
    state = new_state(lenet(), recipe)
    (epoch,) = fit(state, batches_of(*faces, 14), faces, recipe=recipe, epochs=1, seed=0, iterations_per_epoch=2)
    probabilities = predict(state.net, faces[0], views=views)
    np.testing.assert_allclose(epoch.val_probabilities, probabilities, rtol=1e-6)
    right = probabilities[np.arange(28), faces[1]]
    assert epoch.val_loss == pytest.approx(-np.log(right).mean(), rel=1e-5)
    assert epoch.val_accuracy == (probabilities.argmax(1) == faces[1]).mean()


def test_float_faces_are_seen_as_whole_numbers_are(faces: Faces) -> None:
    net = lenet()
    np.testing.assert_array_equal(predict(net, faces[0].astype(np.float32)), predict(net, faces[0]))
