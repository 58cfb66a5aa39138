"""Multiply-adds are torchvision's published ones (`_ops` of its weights, with 1,000 classes)."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from fer_models import NET_NAMES, AlexNetConfig, GoogLeNetConfig, NetConfig, ResNet18Config, ResNet50Config
from fer_models.__main__ import main
from fer_models.listing import summarise
from fer_models.nets.registry import build


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (GoogLeNetConfig(size=224), 1.498e9),
        (ResNet18Config(), 1.814e9),
        (ResNet50Config(), 4.089e9),
    ],
)
def test_multiply_adds_are_the_published_ones(config: NetConfig, published: float) -> None:
    assert summarise(config, 1000).multiply_adds == pytest.approx(published, abs=0.0006e9)


def test_multiply_adds_are_half_of_what_torch_counts() -> None:
    blank = np.zeros((48, 48), np.float32)
    net = build(AlexNetConfig(), classes=7, mean_image=blank, generator=torch.Generator()).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 1, 48, 48, device="meta"))
    assert 2 * summarise(AlexNetConfig(), 7).multiply_adds == counter.get_total_flops()


def test_the_list_names_every_net(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(NET_NAMES)
    lenet = lines[1].split(maxsplit=5)
    # 20 5x5 filters on 44x44, 50 on 20 channels on 18x18, FC500 from 4,050, FC7.
    millions = (44 * 44 * 20 * 25 + 18 * 18 * 50 * 500 + 4050 * 500 + 3500) / 1e6
    assert lenet == ["lenet", "1x48x48", "2,054,577", "8.2", f"{millions:.1f}", "Caffe report"]
    assert "millions" in lines[-1]


def test_the_list_as_json_names_a_missing_optional_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setattr("fer_models.__main__.NET_NAMES", ("alexnet", "efficientnet_lite0"))
    assert main(["--json"]) == 0
    alexnet, efficientnet = json.loads(capsys.readouterr().out)
    assert alexnet == {
        "name": "alexnet",
        "source": "Caffe report",
        "input": "1x48x48",
        "parameters": 7_467_527,
        "megabytes": 7_467_527 * 4 / 1e6,
        "multiply_adds": summarise(AlexNetConfig(), 7).multiply_adds,
    }
    assert efficientnet.keys() == {"name", "source", "missing"}
    assert "pip install efficientnet-lite-pytorch" in efficientnet["missing"]
    assert main([]) == 0
    assert efficientnet["missing"] in capsys.readouterr().out
    assert main(["efficientnet_lite0"]) == 2
    assert capsys.readouterr().err == f"error: {efficientnet['missing']}\n"


def test_one_net_by_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lenet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    layers = {layer["name"]: layer for layer in summary["layers"]}
    assert layers["backbone.conv2"] == {
        "name": "backbone.conv2",
        "kind": "Conv2d",
        "output": [50, 18, 18],
        "parameters": 25_050,
        "multiply_adds": 18 * 18 * 50 * 20 * 25,
    }
    assert sum(layer["parameters"] for layer in summary["layers"]) == summary["parameters"] == 2_054_577
    assert main(["lenet"]) == 0
    assert "50x18x18      25,050" in capsys.readouterr().out


def test_an_unknown_net_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Alexnet2"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: unknown net 'Alexnet2'; did you mean 'alexnet'? (known: alexnet, compact")
    assert captured.out == ""
    assert main(["zzz"]) == 2
    assert "(known: alexnet, compact_resnet" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lenet", "resnet50_v1"])
def test_a_net_is_drawn_layer_by_layer(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.png"
    assert main([name, "--picture", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: ")
    with Image.open(path) as picture:
        assert picture.width > 500
        assert (picture.width > 2000) == (name == "resnet50_v1"), "a long net has several columns"
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_needs_a_net_and_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--picture", str(tmp_path / "net.png")]) == 2
    assert "--picture needs a net, one of lenet, " in capsys.readouterr().err
    assert main(["lenet", "--picture", str(tmp_path / "nowhere/net.png")]) == 2
    assert "the picture cannot be written: No such file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
