"""Data-parallel training: several processes train one net together, each on its part of every batch.

Every process has the whole net and makes the same steps. Gradients are summed over the processes, batch norm uses the
statistics of the whole batch, and dropout draws the masks of the whole batch. So a step equals that of one process
within rounding, for any number of processes.

Legend: n images of the whole batch, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fer_models.parts.layers import Dropout

_PATIENCE = timedelta(days=7)  # the parent ends all processes if one of them is lost


class Team:
    """The processes that train one net; by default only this one."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.own, self.whole = slice(0), 0

    def take(self, n: int) -> slice:
        """This process's part of n rows; parts differ by one row if n is not divisible."""
        self.own, self.whole = slice(n * self.rank // self.size, n * (self.rank + 1) // self.size), n
        return self.own

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one transfer."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(total.view(tensor.shape))

    def joined(self, own: Tensor) -> Tensor:
        """The rows of all processes, of which `own` are those of this one."""
        if self.size == 1:
            return own
        rows = own.new_zeros(self.whole, *own.shape[1:])
        rows[self.own] = own
        self.sum([rows])
        return rows

    def prepare(self, net: nn.Module) -> None:
        """Let batch norms and dropouts of `net` work on the whole batch. Names, weights and buffers stay."""
        for module in net.modules() if self.size > 1 else ():
            for kind, over_whole in ((_BatchNorm, _WholeBatchNorm), (Dropout, _WholeBatchDropout)):
                if isinstance(module, kind):
                    module.__class__ = over_whole  # in place, since the optimizer refers to its parameters
                    module.__dict__["team"] = self


ALONE = Team()


def join(rank: int, size: int, meeting: Path, device: str) -> Team:
    """Join the other processes of this machine by a file that does not exist yet, each with its own rank."""
    backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=meeting.as_uri(), rank=rank, world_size=size, timeout=_PATIENCE)
    return Team(rank, size)


class _WholeBatchDropout(Dropout):
    team: Team

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        mask: Tensor = super().forward(x.new_ones(self.team.whole, *x.shape[1:]))
        return x * mask[self.team.own]


class _WholeBatchNorm(_BatchNorm):
    team: Team

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        output, mean, variance, count = _Normalised.apply(input, self.weight, self.bias, self.eps, self.team)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        result: Tensor = output
        return result

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape, since the net was built with the matching kind."""


class _Normalised(torch.autograd.Function):
    """Batch norm with the statistics of the whole batch; torch's own is only for GPUs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, team: Team
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide, (c, axes) = x.float(), _channels(x)
        variance, mean = torch.var_mean(wide, axes, correction=0)
        seen = wide.new_full((1,), wide.numel() / c)
        # The statistics of each process: sums of squares over all would lose precision.
        rows = wide.new_zeros(team.size, 2 * c + 1)
        rows[team.rank] = torch.cat((mean, variance, seen))
        team.sum([rows])
        means, variances, counts = torch.split(rows, [c, c, 1], 1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean) ** 2) * counts).sum(0) / count
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.team = team
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation, count = ctx.saved_tensors
        (c, axes), gradient = _channels(x), gradients[0].float()
        shape = (1, c) + (1,) * (x.ndim - 2)
        scaled = (x.float() - mean.view(shape)) * inverse_deviation.view(shape)
        own = torch.stack((gradient.sum(axes), (gradient * scaled).sum(axes)))
        total = own.clone()
        ctx.team.sum([total])
        shift, slope = (total / count).view(2, *shape)
        through = (weight * inverse_deviation).view(shape) * (gradient - shift - scaled * slope)
        return through.to(x.dtype), own[1], own[0], None, None


def _channels(x: Tensor) -> tuple[int, list[int]]:
    """The number of channels, and all other axes."""
    return x.shape[1], [axis for axis in range(x.ndim) if axis != 1]
