"""The nets that are checked, each with a recipe, and one training step of `fit` to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fer_common.captured import Captured, Graph
from fer_data import AugmentConfig, Faces
from fer_data.augmentation.batches import train_batches
from fer_models import (
    AlexNetConfig,
    CompactResNetConfig,
    LeNetConfig,
    MemoryFormat,
    NetConfig,
    Precision,
    Recipe,
)
from fer_models.configs.precision import device_kind, fastest
from fer_models.configs.transfer_config import Transfer
from fer_models.nets.registry import build
from fer_models.training.schedule import phases
from fer_models.training.state import TrainingState, new_state, place
from fer_models.training.trainer import Trainer

_ADAMW = Recipe(
    optimizer="adamw", lr=0.004, weight_decay=0.08, lr_policy="onecycle", label_smoothing=0.1, ema_decay=0.99,
    views="mirror",
)  # fmt: skip
_SGD = Recipe(optimizer="nesterov", lr=0.01, weight_decay=5e-4, lr_policy="onecycle", ema_decay=0.99)

Nets = dict[str, tuple[NetConfig, Recipe]]

NETS: Nets = {
    "lenet": (LeNetConfig(), _SGD),
    "alexnet, lrn": (AlexNetConfig(), _SGD),
    "alexnet, batch": (AlexNetConfig(norm="batch", normalisation="standardise"), _SGD),
    "compact_resnet": (CompactResNetConfig(), _ADAMW),
}


def nets(batch_size: int) -> Nets:
    """`NETS` with another batch size."""
    return {name: (net, recipe.model_copy(update={"batch_size": batch_size})) for name, (net, recipe) in NETS.items()}


AUGMENT = AugmentConfig(flip=0.5, rotate_deg=12, shift=0.1, scale=0.15, erase=0.4)
EVERY_SWITCH = AugmentConfig(
    flip=0.5, crop_pad=4, rotate_deg=12, shift=0.1, blur=0.3, brightness=0.1, contrast=0.1, noise=5, cutout=2, erase=0.4
)


def usual_precision(net: NetConfig, device: str) -> Precision:
    """bf16 on a GPU; on cores the fastest, since those without bf16 units take 30 times as long for it."""
    return "bf16" if torch.device(device).type == "cuda" else fastest(net.name, device_kind(device))[0]


class Training:
    """A net in training by `fit`'s own step, on real batches, from fixed seeds."""

    def __init__(
        self,
        faces: Faces,
        net: NetConfig,
        recipe: Recipe,
        device: str,
        precision: Precision | None = None,
        memory_format: MemoryFormat = "channels_last",
        graph: Callable[[], Graph] | None = None,
    ) -> None:
        self.faces, self.net, self.recipe, self.device = faces, net, recipe, device
        generator = torch.Generator().manual_seed(0)
        built = build(net, classes=len(faces.classes), mean_image=faces.mean_image(), generator=generator)
        self.state: TrainingState = new_state(built, recipe)
        place(self.state, torch.device(device), memory_format)
        self.state.net.train()
        phase = phases(recipe, Transfer(), 1)[0]
        precision = precision or usual_precision(net, device)
        self._trainer = Trainer(self.state, phase, (), 1000, device, precision, None, graph=graph)
        self._captured = Captured(graph, shapes=2) if graph else None
        torch.manual_seed(5)  # of dropout
        self._batches = self._endless()
        self._iteration = 0

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        while True:
            yield from train_batches(
                self.faces.train, self.recipe.batch_size, AUGMENT, generator, self.device,
                classes=len(self.faces.classes), captured=self._captured,
            )  # fmt: skip

    def step(self) -> Tensor:
        """One iteration on the next batch; the loss, left on the device."""
        x, labels = next(self._batches)
        loss, _ = self._trainer._step(x, labels, self.recipe.lr / 4, self._iteration)
        self._iteration += 1
        return loss

    def losses(self, steps: int) -> Tensor:
        return torch.stack([self.step() for _ in range(steps)]).cpu()
