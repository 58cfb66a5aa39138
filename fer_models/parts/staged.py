"""The structure that all nets share: stages from the stem to the head, and features before the head.

Legend: n faces, h and w height and width, f features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fer_models.parts.auxiliary import WithAuxiliary
from fer_models.parts.inputs import FaceInput

Stages = tuple[tuple[str, tuple[nn.Module, ...]], ...]
"""(name, modules) from the stem to the head, whose name is "head"; together they have all trained parameters."""


@runtime_checkable
class Staged(Protocol):
    """What every net of the registry offers, in addition to being a module with a `head`.

    It declares only methods: since Python 3.12 `isinstance` does not find a module's submodules, so with `head` here
    every net would fail the check.
    """

    def stages(self) -> Stages:
        """The stages, for freezing and for learning rates by depth."""
        ...

    def features(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] float 0..255 -> [n, f]; in eval mode `head(features(x))` equals the net."""
        ...


@runtime_checkable
class Constrained(Protocol):
    """A net with its own regularisers and constraints."""

    def before_step(self) -> None:
        """Called after each backward pass, before gradients are clipped."""
        ...

    def after_step(self) -> None:
        """Called after each optimizer step."""
        ...


@dataclass(frozen=True)
class WeightLimits:
    """Keras's constraints and regularisers for layers, by their names in the net."""

    max_norm: float = 0.0
    """Maximum norm of the weights of one filter or unit."""
    max_norm_layers: tuple[str, ...] = ()
    l2: float = 0.0
    """Factor of the sum of squared weights in the loss: its gradient passes through the optimizer like that of the
    loss. The recipe's weight decay is additional."""
    l2_layers: tuple[str, ...] = ()


class StagedNet(nn.Module):
    """Input, backbone, flattening, neck, head.

    Args:
        face_input: resizes and normalises.
        backbone: named as in published weights, if there are any.
        head: features -> logits, including the dropout before it.
        stages: stage name -> names of submodules of the backbone; neck and head are separate stages.
        neck: fully connected layers between backbone and head.
        auxiliary: name of a child of the backbone -> the head on its output in training.
        auxiliary_weight: of each auxiliary head's loss.
    """

    def __init__(
        self,
        face_input: FaceInput,
        backbone: nn.Sequential,
        head: nn.Module,
        stages: Mapping[str, tuple[str, ...]],
        *,
        neck: nn.Sequential | None = None,
        auxiliary: Mapping[str, nn.Module] | None = None,
        auxiliary_weight: float = 0.0,
        limits: WeightLimits | None = None,
    ) -> None:
        super().__init__()
        self.input = face_input
        self.backbone = backbone
        self.neck = neck or nn.Sequential()
        self.head = head
        self.auxiliary = nn.ModuleDict(auxiliary or {})
        self._auxiliary_weight = auxiliary_weight
        self._stages = stages
        self._limits = limits or WeightLimits()

    def forward(self, x: Tensor) -> Tensor | WithAuxiliary:
        """[n, 1, h, w] float 0..255 -> logits [n, classes], in training with those of any auxiliary heads."""
        if not self.training or not self.auxiliary:
            logits: Tensor = self.head(self.features(x))
            return logits
        x, seen = self.input(x), []
        for name, child in self.backbone.named_children():
            x = child(x)
            if name in self.auxiliary:
                seen.append(self.auxiliary[name](x))
        return WithAuxiliary(self.head(self.neck(x.flatten(1))), tuple(seen), self._auxiliary_weight)

    def features(self, x: Tensor) -> Tensor:
        """[n, 1, h, w] float 0..255 -> [n, f]."""
        features: Tensor = self.neck(self.backbone(self.input(x)).flatten(1))
        return features

    def stages(self) -> Stages:
        """(name, modules) from the stem to the head."""
        found: list[tuple[str, tuple[nn.Module, ...]]] = [
            (stage, tuple(self.backbone.get_submodule(name) for name in names)) for stage, names in self._stages.items()
        ]
        if len(self.neck):
            found.append(("neck", (self.neck,)))
        return (*found, ("head", (self.head, self.auxiliary)))

    def front(self, count: int) -> list[nn.Module]:
        """The input and what follows it, one after the other, up to the end of the first `count` stages."""
        stages = self.stages()
        last = stages[count - 1][1][-1]
        pieces = list(_pieces(self.backbone, {module for _, modules in stages for module in modules}))
        behind = pieces[: pieces.index(last) + 1] if last in pieces else [*pieces, nn.Flatten(), self.neck]
        return [self.input, *behind]

    @torch.no_grad()
    def before_step(self) -> None:
        """Add the gradient of l2 * w^2, which is 2 * l2 * w; adding the term to the loss would cost more."""
        if self._limits.l2 > 0:
            for weight, gradient in self._learning(self._limits.l2_layers):
                gradient.add_(weight, alpha=2 * self._limits.l2)

    @torch.no_grad()
    def after_step(self) -> None:
        """Rescale filters whose norm is above the maximum after an optimizer step."""
        for weight, _ in self._learning(self._limits.max_norm_layers):
            weight.renorm_(2, 0, self._limits.max_norm)

    def _learning(self, layers: tuple[str, ...]) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The weights of those layers and their gradients, without frozen ones, which have none."""
        for name in layers:
            weight = self.get_parameter(f"{name}.weight")
            if weight.grad is not None:
                yield weight, weight.grad


def _pieces(module: nn.Module, members: set[nn.Module]) -> Iterator[nn.Module]:
    """`module`, or the parts of a sequence, down to the modules of the stages."""
    if isinstance(module, nn.Sequential) and module not in members:
        for child in module.children():
            yield from _pieces(child, members)
    else:
        yield module
