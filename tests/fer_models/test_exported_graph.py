"""Graphs of nets take any number of faces, whatever number they were traced with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from fer_models import NET_CONFIGS, AlexNetConfig, JointConfig, NetConfig, VGG16Config
from fer_models.exported_graph import ExportedGraph, explained_graph
from fer_models.inspection.activations import last_map
from fer_models.nets.registry import build
from fer_models.packed_nets import Member

KINDS = [
    kind for kind in (*NET_CONFIGS.values(), JointConfig) if kind.model_fields["name"].default != "efficientnet_lite0"
]
"""All nets but the one whose package is optional."""
SMALLER: dict[str, dict[str, Any]] = {
    "inception_v3": {"size": 96, "auxiliary_weight": 0},
    "face_resnet": {"size": 104},
    "joint": {"members": [{"name": "lenet"}, {"name": "compact_resnet"}]},
}


def check(config: NetConfig, side: int = 48) -> None:
    mean = np.full((side, side), 128, np.float32)
    net = build(config, classes=7, mean_image=mean, generator=torch.Generator().manual_seed(0))
    graph = ExportedGraph([Member(net, "none", "plain", 1.0)], mean)
    shapes = {"faces": {0: torch.export.Dim("n")}}
    with torch.no_grad():
        program = torch.export.export(graph, (torch.zeros(2, side, side, dtype=torch.uint8),), dynamic_shapes=shapes)
        faces = torch.randint(256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(program.module()(faces), graph(faces), atol=1e-5, rtol=1e-4)


QUICK = {"lenet", "alexnet", "vgg_small", "compact_resnet", "joint"}
every_net = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=name, marks=() if name in QUICK else pytest.mark.long)
        for kind in KINDS
        for name in [kind.model_fields["name"].default]
    ],
)


@every_net
def test_a_graph_takes_any_number_of_faces(kind: Any) -> None:
    name = kind.model_fields["name"].default
    small = SMALLER.get(name) or ({"size": 48} if "size" in kind.model_fields else {})
    adapter: TypeAdapter[NetConfig] = TypeAdapter(NetConfig)
    check(adapter.validate_python({"name": name, **small}))


@pytest.mark.timeout(120)  # torch.export follows each of Inception's operations
@every_net
def test_where_a_net_looked_needs_no_gradient_in_its_graph(kind: Any) -> None:
    name = kind.model_fields["name"].default
    small = SMALLER.get(name) or ({"size": 48} if "size" in kind.model_fields else {})
    adapter: TypeAdapter[NetConfig] = TypeAdapter(NetConfig)
    mean = np.full((48, 48), 128, np.float32)
    net = build(adapter.validate_python({"name": name, **small}), classes=7, mean_image=mean,
                generator=torch.Generator().manual_seed(0))  # fmt: skip
    graph = ExportedGraph([Member(net, "none", "mirror", 1.0)], mean)
    faces = torch.randint(256, (3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    explained = explained_graph(graph, torch.zeros(2, 48, 48, dtype=torch.uint8))
    assert isinstance(explained, torch.fx.GraphModule)
    assert [node for node in explained.graph.nodes if "backward" in str(node.target)] == []
    probabilities, looked = explained(faces)
    with torch.no_grad():
        torch.testing.assert_close(probabilities, graph(faces))
    assert looked.shape == faces.shape
    assert set(looked.amax((1, 2)).round().tolist()) <= {0, 1}


def test_it_is_the_grad_cam_that_captum_gives() -> None:
    captum = pytest.importorskip("captum.attr")
    mean = np.full((48, 48), 128, np.float32)
    net = build(VGG16Config(), classes=7, mean_image=mean, generator=torch.Generator().manual_seed(0)).eval()
    faces = torch.randint(256, (2, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    _, looked = explained_graph(ExportedGraph([Member(net, "none", "plain", 1.0)], mean), faces)(faces)
    x = faces.float().unsqueeze(1)
    coarse = captum.LayerGradCam(net, last_map(net)).attribute(x, net(x).argmax(1), relu_attributions=True)
    wanted = torch.nn.functional.interpolate(coarse.detach(), size=(48, 48), mode="bilinear")[:, 0]
    torch.testing.assert_close(looked, wanted / wanted.amax((1, 2), keepdim=True), atol=1e-4, rtol=1e-3)


def test_alexnet_with_batch_norm() -> None:
    check(AlexNetConfig(norm="batch"))
