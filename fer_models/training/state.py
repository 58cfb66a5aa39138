"""The state of a training, with everything that is needed to continue it bit-identically."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from inspect import unwrap

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fer_models.configs.recipe import MemoryFormat, Recipe
from fer_models.configs.transfer_config import Transfer
from fer_models.parts.stages import rate_factors

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_FROM_SCRATCH = Transfer()


class _NeverCompiled(Optimizer):
    """An optimizer by its plain methods, without the decorators of `Optimizer`.

    These import torch._dynamo with the first optimizer of a process, so that optimizers can be compiled. None is
    compiled here, and the import takes about 2 s of processor time and 150 MiB.
    """

    add_param_group = unwrap(Optimizer.add_param_group)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)


class SGD(_NeverCompiled, torch.optim.SGD):
    """As torch.optim.SGD."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class Adam(_NeverCompiled, torch.optim.Adam):
    """As torch.optim.Adam."""

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


class AdamW(_NeverCompiled, torch.optim.AdamW):
    """As torch.optim.AdamW."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


@dataclass
class Plateau:
    """State of `lr_policy="plateau"`."""

    best: float = -1.0
    epochs_without_best: int = 0
    factor: float = 1.0

    def update(self, val_accuracy: float, recipe: Recipe) -> None:
        """Register an epoch's accuracy; reduce the factor when the patience of `recipe` is used up."""
        if val_accuracy > self.best:
            self.best, self.epochs_without_best = val_accuracy, 0
            return
        self.epochs_without_best += 1
        if self.epochs_without_best > (recipe.patience_epochs or 0):
            self.factor *= recipe.gamma or 1.0
            self.epochs_without_best = 0


@dataclass
class TrainingState:
    """A net in training after `epoch` whole epochs."""

    net: nn.Module
    optimizer: Optimizer
    ema: nn.Module | None
    epoch: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    loss_scale: dict[str, float] = field(default_factory=dict)
    """`GradScaler.state_dict` in fp16; empty in other precisions and before the first epoch."""

    @property
    def judged_net(self) -> nn.Module:
        """The net that is validated and saved: the running average if there is one."""
        return self.ema if self.ema is not None else self.net

    def forget(self) -> None:
        """Start a new phase: the net stays, optimizer and plateau are reset."""
        self.optimizer.state.clear()
        self.plateau = Plateau()


def new_state(net: nn.Module, recipe: Recipe, transfer: Transfer = _FROM_SCRATCH) -> TrainingState:
    """`net` before its first epoch; the net is not copied, and has its initial weights.

    Raises:
        ModelError: stages need their own learning rates, but the net names no stages.
    """
    ema = None
    if recipe.ema_decay is not None:
        ema = copy.deepcopy(net).eval().requires_grad_(False)
    return TrainingState(net=net, optimizer=_optimizer(net, recipe, transfer), ema=ema)


def place(state: TrainingState, device: torch.device, memory_format: MemoryFormat) -> None:
    """Move net, average and optimizer to `device`, all in one memory layout.

    The fused optimizers process weight, gradient and momentum as flat memory, so their layouts must agree.
    """
    for net in (state.net, state.ema):
        if net is not None:
            move(net, device, memory_format)
    for parameter, memory in state.optimizer.state.items():
        for name, value in memory.items():
            if isinstance(value, Tensor):
                memory[name] = laid_out_as(parameter, value)


def laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` on the device of `parameter`, and with its strides if the shapes agree."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def move(net: nn.Module, device: torch.device, memory_format: MemoryFormat) -> None:
    """Move `net` to `device`, its convolutions in `memory_format`.

    On a GPU this also disables TF32, to which cuDNN would round by torch's default.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    net.to(device).to(memory_format=layout)


def _optimizer(net: nn.Module, recipe: Recipe, transfer: Transfer) -> Optimizer:
    groups = _parameter_groups(net, recipe, rate_factors(net, transfer.lr_decay_per_stage))
    if recipe.optimizer in ("sgd", "nesterov"):
        nesterov = recipe.optimizer == "nesterov"
        return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    kind = Adam if recipe.optimizer == "adam" else AdamW
    return kind(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)


def _parameter_groups(net: nn.Module, recipe: Recipe, factors: dict[int, float]) -> list[dict[str, object]]:
    """Weights, then biases, then norms, one group per decay and learning-rate factor.

    Saved states number the optimizer's tensors in this order of parameters.
    """
    small = recipe.weight_decay if recipe.decay_bias_and_norm else 0.0
    groups: dict[tuple[int, float, float], list[nn.Parameter]] = {}
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            rate = factors.get(id(parameter), 1.0)
            if isinstance(module, _NORMS):
                key = (2, small, rate)
            elif name == "bias":
                key = (1, small, rate * recipe.bias_lr_factor)
            else:
                key = (0, recipe.weight_decay, rate)
            groups.setdefault(key, []).append(parameter)
    in_order = sorted(groups.items(), key=lambda item: item[0][0])
    return [
        {"params": parameters, "weight_decay": decay, "lr_factor": factor}
        for (_, decay, factor), parameters in in_order
    ]
