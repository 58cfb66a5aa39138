"""Several nets in one: joined at their outputs or in their middles, and trained together.

Legend: n faces, c channels, h and w height and width, f features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fer_models.errors import ModelError
from fer_models.parts.initialisers import he
from fer_models.parts.layers import Dropout
from fer_models.parts.staged import Constrained, Staged, StagedNet, Stages

_POOLED = 3
_UNITS = 256
_FACE = 48


class JointNet(nn.Module):
    """Members, whose features are side by side, and one head."""

    def __init__(self, members: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] float 0..255 -> logits [n, classes]."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] float 0..255 -> [n, f], those of all members."""
        return torch.cat([member(x) for member in self.members], 1)

    def stages(self) -> Stages:
        """The members, which are beside each other, and the head."""
        return (("members", tuple(self.members)), ("head", (self.head,)))

    def before_step(self) -> None:
        """The members' own regularisers."""
        for net in self._constrained():
            net.before_step()

    def after_step(self) -> None:
        """The members' own constraints."""
        for net in self._constrained():
            net.after_step()

    def _constrained(self) -> Iterator[Constrained]:
        nets = (member.net for member in self.members if isinstance(member, _Features))
        return (net for net in nets if isinstance(net, Constrained))


class _Features(nn.Module):
    """A net without its head."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.net.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.net, Staged)
        return self.net.features(x)


class _MeanOfHeads(nn.Module):
    """The members' own heads, each on its part of the features; their mean."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self._widths = [_last_layer(head).in_features for head in heads]

    def forward(self, features: Tensor) -> Tensor:
        parts = zip(self.heads, torch.split(features, self._widths, 1), strict=True)
        return torch.stack([head(part) for head, part in parts]).mean(0)


def _last_layer(head: nn.Module) -> nn.Linear:
    return next(module for module in head.modules() if isinstance(module, nn.Linear))


def join(
    members: Sequence[nn.Module], at: Literal["output", "middle"], classes: int, generator: torch.Generator
) -> JointNet:
    """One net of `members`, whose parts and weights it takes.

    Raises:
        ModelError: a member cannot be cut at its middle.
    """
    if at == "output":
        heads = [_head(member) for member in members]
        return JointNet([_Features(member) for member in members], _MeanOfHeads(heads))
    fronts = [_front(member) for member in members]
    with torch.inference_mode():
        width = sum(front.eval()(torch.zeros(1, 1, _FACE, _FACE)).shape[1] for front in fronts)
    head = nn.Sequential(nn.Linear(width, _UNITS), nn.ReLU(), Dropout(0.5), nn.Linear(_UNITS, classes))
    he(head, generator, "fan_in")
    return JointNet([front.train() for front in fronts], head)


def _head(net: nn.Module) -> nn.Module:
    head = net.head
    assert isinstance(head, nn.Module)
    return head


def _front(net: nn.Module) -> nn.Sequential:
    """The first half of a net's stages, pooled and flattened."""
    if not isinstance(net, StagedNet):
        raise ModelError(f"{type(net).__name__} cannot be joined at its middle, since it is no sequence of stages")
    below = net.stages()[:-1]
    return nn.Sequential(*net.front((len(below) + 1) // 2), nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten())
