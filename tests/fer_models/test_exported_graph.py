"""Graphs of nets take any number of faces, whatever number they were traced with."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from fer_models import AlexNetConfig, NetConfig
from fer_models.exported_graph import ExportedGraph
from fer_models.nets.registry import build
from fer_models.packed_nets import Member

KINDS = [kind for kind in get_args(get_args(NetConfig)[0]) if kind.model_fields["name"].default != "efficientnet_lite0"]
"""All nets but the one whose package is optional."""
SMALLER: dict[str, dict[str, int]] = {"inception_v3": {"size": 96, "auxiliary_weight": 0}}


def check(config: NetConfig, side: int = 48) -> None:
    mean = np.full((side, side), 128, np.float32)
    net = build(config, classes=7, mean_image=mean, generator=torch.Generator().manual_seed(0))
    graph = ExportedGraph([Member(net, "none", "plain", 1.0)], mean)
    shapes = {"faces": {0: torch.export.Dim("n")}}
    with torch.no_grad():
        program = torch.export.export(graph, (torch.zeros(2, side, side, dtype=torch.uint8),), dynamic_shapes=shapes)
        faces = torch.randint(256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(program.module()(faces), graph(faces), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.model_fields["name"].default)
def test_a_graph_takes_any_number_of_faces(kind: Any) -> None:
    name = kind.model_fields["name"].default
    small = SMALLER.get(name) or ({"size": 48} if "size" in kind.model_fields else {})
    adapter: TypeAdapter[NetConfig] = TypeAdapter(NetConfig)
    check(adapter.validate_python({"name": name, **small}))


def test_alexnet_with_batch_norm() -> None:
    check(AlexNetConfig(norm="batch"))
