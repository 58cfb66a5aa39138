"""Several nets in one: joined at their outputs or in their middles, and trained together.

Legend: n faces, c channels, h and w height and width, f features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, zip_longest
from typing import Literal

import torch
import torch.nn.functional as F
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
        """Those of equal depth of all members together, from the stems on, and the head."""
        columns = [member.stages() for member in self._members()]
        rows = enumerate(zip_longest(*columns, fillvalue=()), 1)
        found = [(f"stage{number}", tuple(chain.from_iterable(row))) for number, row in rows]
        left = chain.from_iterable(member.unused for member in self._members())
        return (*found, ("head", (self.head, *left)))

    def before_step(self) -> None:
        """The members' own regularisers."""
        for net in self._constrained():
            net.before_step()

    def after_step(self) -> None:
        """The members' own constraints."""
        for net in self._constrained():
            net.after_step()

    def _constrained(self) -> Iterator[Constrained]:
        nets = (member.net for member in self._members() if isinstance(member, _Features))
        return (net for net in nets if isinstance(net, Constrained))

    def _members(self) -> Iterator[_Features | _FirstHalf]:
        for member in self.members:
            assert isinstance(member, _Features | _FirstHalf)
            yield member


class _Features(nn.Module):
    """A net without its head."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.net.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.net, Staged)
        return self.net.features(x)

    def stages(self) -> list[tuple[nn.Module, ...]]:
        assert isinstance(self.net, Staged)
        return [modules for _, modules in self.net.stages()[:-1]]

    @property
    def unused(self) -> tuple[nn.Module, ...]:
        """Auxiliary heads, which look at no joint net."""
        assert isinstance(self.net, Staged)
        return self.net.stages()[-1][1]


class _FirstHalf(nn.Module):
    """The first half of a net's stages; their last map is pooled and flattened."""

    unused: tuple[nn.Module, ...] = ()

    def __init__(self, net: StagedNet) -> None:
        super().__init__()
        count = len(net.stages()) // 2
        fronts: list[list[nn.Module]] = [[net.input], *(net.front(number) for number in range(1, count + 1))]
        self.input = net.input
        self.parts = nn.ModuleList(nn.Sequential(*front[len(before) :]) for before, front in pairwise(fronts))

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        for part in self.parts:
            x = part(x)
        return F.adaptive_avg_pool2d(x, _POOLED).flatten(1)

    def stages(self) -> list[tuple[nn.Module, ...]]:
        return [(part,) for part in self.parts]


class _MeanOfHeads(nn.Module):
    """The members' own heads, each on its part of the features; their mean."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self._widths = [_first_linear(head).in_features for head in heads]

    def forward(self, features: Tensor) -> Tensor:
        parts = zip(self.heads, torch.split(features, self._widths, 1), strict=True)
        return torch.stack([head(part) for head, part in parts]).mean(0)


def _first_linear(head: nn.Module) -> nn.Linear:
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
    halves = [_first_half(member) for member in members]
    with torch.inference_mode():
        width = sum(half.eval()(torch.zeros(1, 1, _FACE, _FACE)).shape[1] for half in halves)
    head = nn.Sequential(nn.Linear(width, _UNITS), nn.ReLU(), Dropout(0.5), nn.Linear(_UNITS, classes))
    he(head, generator, "fan_in")
    return JointNet([half.train() for half in halves], head)


def _head(net: nn.Module) -> nn.Module:
    head = net.head
    assert isinstance(head, nn.Module)
    return head


def _first_half(net: nn.Module) -> _FirstHalf:
    if not isinstance(net, StagedNet):
        raise ModelError(f"{type(net).__name__} cannot be joined at its middle, since it is no sequence of stages")
    return _FirstHalf(net)
