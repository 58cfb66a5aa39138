"""Counts and map sizes are those of the Caffe report's published prototxt files."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fer_models import AlexNetConfig, LeNetConfig, ModelError
from fer_models.configs.net_config import Normalisation
from fer_models.nets.registry import build, count_parameters
from fer_models.parts.inputs import FaceInput
from fer_models.parts.layers import Dropout, LocalResponseNorm, conv3x3

NETS = [LeNetConfig(), AlexNetConfig(), AlexNetConfig(norm="batch")]


def make(config: LeNetConfig | AlexNetConfig, seed: int = 0) -> nn.Module:
    mean = np.full((48, 48), 128, dtype=np.float32)
    return build(config, classes=7, mean_image=mean, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LeNetConfig(), 2_054_577),
        (AlexNetConfig(), 7_467_527),
        (AlexNetConfig(norm="batch"), 7_467_527 + 2 * (96 + 256 + 384 + 384 + 256)),
    ],
)
def test_parameter_counts(config: LeNetConfig | AlexNetConfig, parameters: int) -> None:
    assert count_parameters(make(config)) == parameters


def map_sizes(net: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[int]:
    sizes: list[int] = []
    for module in net.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _module, _input, output: sizes.append(output.shape[-1]))
    net(torch.zeros(2, 1, 48, 48))
    return sizes


def test_alexnet_map_sizes() -> None:
    pools = map_sizes(make(AlexNetConfig()), (nn.MaxPool2d,))
    assert pools == [5, 2, 1]
    # conv3 to conv5 are applied by `conv3x3`, so their maps are read from the batch norms behind them.
    assert map_sizes(make(AlexNetConfig(norm="batch")), (nn.BatchNorm2d,)) == [10, 5, 2, 2, 2]


def test_lenet_map_sizes() -> None:
    assert map_sizes(make(LeNetConfig()), (nn.Conv2d, nn.MaxPool2d)) == [44, 22, 18, 9]


@pytest.mark.parametrize("config", NETS)
def test_equal_generators_give_equal_nets(config: LeNetConfig | AlexNetConfig) -> None:
    torch.manual_seed(1)
    first = make(config).state_dict()
    torch.manual_seed(2)
    second = make(config).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = make(config, seed=1).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_lenet_starts_as_caffe_does() -> None:
    weight = make(LeNetConfig()).get_parameter("neck.fc1.weight")
    bound = (3 / 4050) ** 0.5  # fan in 50 * 9 * 9
    assert bound * 0.999 < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


def test_alexnet_starts_as_caffe_does() -> None:
    net = make(AlexNetConfig())
    deviations = {"conv1": 0.01, "conv2": 0.01, "conv5": 0.01, "fc6": 0.005, "fc7": 0.005, "head.fc8": 0.01}
    for name, deviation in deviations.items():
        assert net.get_parameter(f"{name}.weight").std().item() == pytest.approx(deviation, rel=0.03)
    biases = {"conv1": 0, "conv2": 0.1, "conv3": 0, "conv4": 0.1, "conv5": 0.1, "fc6": 0.1, "fc7": 0.1, "head.fc8": 0}
    for name, bias in biases.items():
        assert torch.all(net.get_parameter(f"{name}.bias") == bias)


def test_the_mean_image_travels_with_alexnet() -> None:
    mean = np.arange(48 * 48, dtype=np.float32).reshape(48, 48)
    net = build(AlexNetConfig(), classes=7, mean_image=mean, generator=torch.Generator().manual_seed(0)).eval()
    assert torch.equal(net.state_dict()["input.shift"][0, 0], torch.tensor(mean))
    black = net(torch.tensor(mean)[None, None])  # the mean face becomes zeros, so conv1's bias alone remains
    other = build(
        AlexNetConfig(), classes=7, mean_image=np.zeros_like(mean), generator=torch.Generator().manual_seed(0)
    ).eval()
    assert torch.allclose(black, other(torch.zeros(1, 1, 48, 48)))


@pytest.mark.parametrize("config", NETS)
def test_faces_of_another_size_are_resized(config: LeNetConfig | AlexNetConfig) -> None:
    flat = np.full((96, 96), 128, dtype=np.float32)
    net = build(config, classes=7, mean_image=flat, generator=torch.Generator().manual_seed(0)).eval()
    small = make(config).eval()
    assert config.size == 48
    assert torch.allclose(net(torch.full((2, 1, 96, 96), 50.0)), small(torch.full((2, 1, 48, 48), 50.0)), atol=1e-5)


def test_standardising_ignores_brightness_and_contrast() -> None:
    net = make(AlexNetConfig(norm="batch", normalisation="standardise")).eval()
    faces = torch.rand(3, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 100
    # Untrained and without dropout the logits spread over some tenths, so this is no weak bound.
    assert torch.allclose(net(faces), net(2 * faces + 30), atol=1e-4)
    assert not torch.allclose(net(faces), net(faces.flip(3)), atol=1e-2)
    black = net(torch.zeros(1, 1, 48, 48))
    assert torch.isfinite(black).all()
    assert torch.equal(black, net(torch.full((1, 1, 48, 48), 255.0)))


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("raw", 64.0),
        ("caffe", 0.25),
        ("unit", 64 / 255),
        ("half", -63.5 / 127.5),
        ("centred", -0.25),
        ("lite", -63 / 128),
        ("mean_image", -36.0),
        ("standardise", 0.0),
    ],
)
def test_what_a_grey_level_of_64_becomes(normalisation: Normalisation, expected: float) -> None:
    seen = FaceInput(normalisation, np.full((8, 8), 100, np.float32), size=8)(torch.full((2, 1, 8, 8), 64.0))
    assert torch.allclose(seen, torch.tensor(expected)), seen
    assert seen.shape == (2, 1, 8, 8)


def test_imagenets_mean_and_deviation_are_by_colour() -> None:
    grey, blank = torch.full((1, 1, 8, 8), 64.0), np.zeros((8, 8), np.float32)
    seen = FaceInput("imagenet", blank, size=8, channels=3)(grey)[0, :, 0, 0]
    expected = [(64 / 255 - 0.485) / 0.229, (64 / 255 - 0.456) / 0.224, (64 / 255 - 0.406) / 0.225]
    assert torch.allclose(seen, torch.tensor(expected))
    alone = FaceInput("imagenet", blank, size=8)(grey)
    assert alone.shape == (1, 1, 8, 8)
    assert torch.allclose(alone, torch.tensor((64 / 255 - 0.449) / 0.226))


def test_nan_in_the_mean_image_is_refused(mean_image: npt.NDArray[np.float32]) -> None:
    mean_image[0, 0] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        build(AlexNetConfig(), classes=7, mean_image=mean_image, generator=torch.Generator())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_response_norm_equals_torch(layout: torch.memory_format) -> None:
    x = (torch.randn(4, 96, 10, 10, generator=torch.Generator().manual_seed(0)) * 100).to(memory_format=layout)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    result, expected = LocalResponseNorm()(ours), F.local_response_norm(theirs, 5, 1e-4, 0.75, 1.0)
    torch.testing.assert_close(result, expected)
    towards = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(result, ours, towards)
    (wanted,) = torch.autograd.grad(expected, theirs, towards)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_small_convolution_equals_torch(groups: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, padding=1, groups=groups).to(memory_format=layout)
    x = torch.randn(5, 8, 2, 2).to(memory_format=layout)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    towards = torch.randn(5, 12, 2, 2)
    expected = conv(theirs)
    expected_gradients = torch.autograd.grad(expected, [theirs, *conv.parameters()], towards)
    result = conv3x3(conv, ours)
    gradients = torch.autograd.grad(result, [ours, *conv.parameters()], towards)
    torch.testing.assert_close(result, expected)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_dropout_keeps_the_mean_and_drops_the_share(probability: float) -> None:
    torch.manual_seed(0)
    ones = torch.ones(1000, 1001)
    dropped = Dropout(probability)(ones)
    # Standard error of the share over a million draws: below 0.0005.
    assert (dropped == 0).float().mean().item() == pytest.approx(probability, abs=0.0025)
    assert dropped.mean().item() == pytest.approx(1, abs=0.005)
    assert Dropout(probability).eval()(ones) is ones


def test_lrn_with_hes_initialization_tells_faces_apart_at_once() -> None:
    """Caffe's fillers give every face nearly the same logits at first, which keeps the net at chance for long."""
    faces = torch.rand(8, 1, 48, 48, generator=torch.Generator().manual_seed(1)) * 255

    def spread(config: AlexNetConfig) -> float:
        logits: torch.Tensor = make(config).eval()(faces)
        return float(logits.std(0).mean())

    assert spread(AlexNetConfig()) < 1e-3
    assert spread(AlexNetConfig(initialization="he")) > 0.1
