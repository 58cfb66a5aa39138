"""Filters, maps and saliency against weights files, scipy's correlation and arithmetic by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file
from scipy.signal import correlate2d
from torch import Tensor, nn

from fer_models import NET_CONFIGS, NET_NAMES, AlexNetConfig, LeNetConfig, ModelError, ResNet18Config
from fer_models.inspection.activations import first_filters, outputs, watch
from fer_models.inspection.saliency import grad_cam, occlusion, occlusion_window
from fer_models.nets.registry import build
from fer_models.training.weights import save_weights
from tests.fer_models.small_nets import TINY, make

LARGER: dict[str, dict[str, Any]] = {
    "alexnet": {},
    "inception_v3": {"size": 75, "auxiliary_weight": 0},
    "efficientnet_lite0": {"size": 64},
    "face_resnet": {"size": 104},
}
RNG = np.random.default_rng(5)
FACES = RNG.integers(0, 256, (3, 48, 48), dtype=np.uint8)


def small(name: str) -> nn.Module:
    """A net of each family, at a size that takes no time."""
    config: Any = NET_CONFIGS[name]
    given = LARGER.get(name, {"size": 32} if "size" in config.model_fields else {})
    try:
        return build(
            config(**given),
            classes=2,
            mean_image=np.full((48, 48), 128, np.float32),
            generator=torch.Generator().manual_seed(0),
        ).eval()
    except ModelError as error:
        pytest.skip(str(error))


def test_filters_are_those_of_the_weights_file(tmp_path: Path) -> None:
    net = make(LeNetConfig())
    save_weights(net, tmp_path / "w.safetensors", {})
    name, filters = first_filters(net)
    assert name == "backbone.conv1"
    np.testing.assert_array_equal(filters, load_file(tmp_path / "w.safetensors")["backbone.conv1.weight"][:, 0])


def test_filters_for_colours_answer_to_a_grey_face_as_their_sum() -> None:
    net = make(ResNet18Config(size=32))
    name, filters = first_filters(net)
    face = torch.randn(1, 1, 7, 7)
    colours = net.get_submodule(name)(nn.functional.pad(face, (9,) * 4).expand(-1, 3, -1, -1))[0, :, 6, 6]
    np.testing.assert_allclose((filters * face[0, 0].numpy()).sum((1, 2)), colours.detach(), rtol=1e-4, atol=1e-5)


def test_a_map_is_scipy_s_correlation_of_the_face() -> None:
    net = make(LeNetConfig())
    (conv,) = watch(net, ["backbone.conv1"])
    assert conv.shape == (20, 44, 44)
    maps = outputs(net, FACES, [conv])["backbone.conv1"]
    weights = net.state_dict()
    for face, channel in ((0, 3), (2, 19)):
        filter_, bias = weights["backbone.conv1.weight"][channel, 0].numpy(), weights["backbone.conv1.bias"][channel]
        by_hand = correlate2d(FACES[face] / 256, filter_, mode="valid") + float(bias)
        np.testing.assert_allclose(maps[face, channel], by_hand, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NET_NAMES)
def test_every_net_has_filters_maps_and_evidence(name: str) -> None:
    net = small(name)
    _, filters = first_filters(net)
    assert filters.shape[1] == filters.shape[2] > 1
    watched = watch(net)
    assert len(watched) > 1
    assert all(one.is_map for one in watched)
    for one, given in zip(watched, outputs(net, FACES[:1], watched).values(), strict=True):
        assert given.shape == (1, *one.shape)
        assert np.isfinite(given).all()
    map_ = grad_cam(net, FACES[:1], np.array([1]), watched[0])
    assert map_.shape == (1, 48, 48)
    assert map_.min() >= 0


@pytest.mark.parametrize("norm", ["lrn", "batch"])
def test_a_stage_gives_what_its_last_module_gives(norm: Any) -> None:
    net = build(
        AlexNetConfig(norm=norm), classes=7, mean_image=np.zeros((48, 48), np.float32), generator=torch.Generator()
    ).eval()
    layers = watch(net, ["conv3", "pool", "fc6"])
    given = outputs(net, FACES, layers)
    assert [one.path for one in layers] == ["batch_norms.2", "pool", "dropout"]
    assert [one.shape for one in layers] == [(384, 2, 2), (256, 1, 1), (4096,)]
    with torch.inference_mode():
        x = net.get_submodule("dropout")(torch.tensor(given["fc6"]))
        logits = net.get_submodule("head")(net.get_submodule("fc7")(x).relu())
        expected = net(torch.tensor(FACES).float()[:, None])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert given["conv3"].min() < 0 < given["conv3"].max(), "as it was before the ReLU wrote into it"


def test_a_net_in_channels_last_and_training_is_watched_as_it_is_and_left_so() -> None:
    net = make(TINY)
    layers = watch(net)
    net.eval()
    plain = outputs(net, FACES, layers)
    net.train()
    other = outputs(net.to(memory_format=torch.channels_last), FACES, layers)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    for name, given in plain.items():
        np.testing.assert_allclose(other[name], given, rtol=1e-3, atol=1e-4)
    assert list(plain) == ["stem", "group1", "group2", "group3", "group4"]


def test_all_unknown_layers_are_named_at_once() -> None:
    with pytest.raises(ModelError, match=r"'grup1'; did you mean 'group1'\?; no layer '0.conv1'; did you mean 'backb"):
        watch(make(TINY), ["stem", "grup1", "0.conv1"])


class Corner(nn.Module):
    """Says class 1 the surer, the brighter the 8x8 corner at the top left is."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(1, 1, 1)  # that the net has a parameter
        nn.init.ones_(self.look.weight)
        nn.init.zeros_(self.look.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        corner = self.look(x)[:, 0, :8, :8].mean((1, 2)) / 64
        return torch.stack([torch.zeros_like(corner), corner], 1)


def probability(face: npt.NDArray[np.floating]) -> float:
    return float(1 / (1 + np.exp(-face[:8, :8].mean() / 64)))


def test_occlusion_finds_the_corner_and_is_the_mean_drop_by_hand() -> None:
    faces = np.zeros((2, 48, 48), np.uint8)
    faces[0, :12, :12], faces[1, 30:, 30:] = 200, 200
    drops = occlusion(Corner(), faces, np.array([1, 1]))
    assert occlusion_window(48, 48) == (8, 4)
    total, count = np.zeros((48, 48)), np.zeros((48, 48))
    for top in range(0, 41, 4):
        for left in range(0, 41, 4):
            covered = faces[0].astype(float)
            square = np.s_[top : top + 8, left : left + 8]
            covered[square] = faces[0].mean()
            total[square] += probability(faces[0].astype(float)) - probability(covered)
            count[square] += 1
    np.testing.assert_allclose(drops[0], total / count, atol=1e-6)
    assert drops[0, 0, 0] == drops[0].max() > 0.2
    assert np.abs(drops[0, 12:, 12:]).max() == 0
    assert drops[1, :8, :8].max() < 0, "light where there was none speaks for the class"
    assert np.abs(drops[1, 16:, 16:]).max() == 0


def test_a_square_moves_to_the_edge_of_a_face_that_it_does_not_divide() -> None:
    drops = occlusion(Corner(), RNG.integers(0, 256, (1, 31, 45), dtype=np.uint8), np.array([1]))
    assert occlusion_window(31, 45) == (5, 2)
    assert np.isfinite(drops).all()


class TwoMaps(nn.Module):
    """The face and its negative; class 0 goes by the mean of the first map, class 1 by twice the second's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.conv(x / 255 - 0.5)).mean((2, 3)))  # type: ignore[no-any-return]


def test_grad_cam_by_hand() -> None:
    net = TwoMaps()
    (conv,) = watch(net, ["conv"])
    maps = grad_cam(net, FACES[:2], np.array([0, 1]), conv)
    # The gradient of a mean is 1/n in each place, whose mean over places is 1/n too.
    centred = FACES[:2] / 255 - 0.5
    np.testing.assert_allclose(maps[0], np.maximum(centred[0], 0) / 48**2, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(maps[1], 2 * np.maximum(-centred[1], 0) / 48**2, rtol=1e-4, atol=1e-9)


def test_grad_cam_needs_a_map() -> None:
    net = TwoMaps()
    (head,) = watch(net, ["head"])
    with pytest.raises(ModelError, match="layer 'head': it gives 2, expected a map"):
        grad_cam(net, FACES, np.zeros(3, int), head)


def test_without_captum_there_are_maps_and_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    net = TwoMaps()
    (conv,) = watch(net, ["conv"])
    assert outputs(net, FACES, [conv])["conv"].shape == (3, 2, 48, 48)
    for ask in (lambda: grad_cam(net, FACES, np.zeros(3, int), conv), lambda: occlusion(net, FACES, np.zeros(3, int))):
        with pytest.raises(ModelError, match="pip install captum"):
            ask()
