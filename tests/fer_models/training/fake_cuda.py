"""CUDA without a GPU: tensors that have a device, a shape and a type, and no content. A mix of devices raises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = "cuda:0"


@contextmanager
def fake_cuda() -> Iterator[None]:
    """In the block tensors are fake, and autocast believes in a GPU with bf16."""
    import fer_data.augmentation.batches as batches

    real = batches._draw_epoch
    with (
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch.object(batches, "_draw_epoch", lambda *given: _really(lambda: real(*given))),
        FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()),
    ):
        yield


def to_cuda(net: nn.Module) -> None:
    """Replace parameters and buffers by fake ones on the GPU; `Module.to` does not know how."""
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(_like(parameter), requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _like(buffer)


def no_backward(net: nn.Module) -> Any:
    """`Tensor.backward`, which wants a driver, gives every parameter a gradient of its own kind instead."""

    def backward(loss: Tensor) -> None:
        assert loss.device.type == "cuda"
        for parameter in net.parameters():
            parameter.grad = torch.empty_like(parameter)

    return mock.patch.object(torch.Tensor, "backward", backward)


class Copies(TorchDispatchMode):
    """Counts what makes the host wait for the GPU: copies between them, indices by a mask, values that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.blocking: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name.startswith(
            "_fused_"
        ):  # there is no fake kernel: its arguments must lie on one device, as a real one wants
            assert {tensor.device.type for tensor in given} == {"cuda"}, name
            return None
        result = function(*args, **kwargs or {})
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        kinds = {tensor.device.type for tensor in (*given, *made) if tensor.ndim or name in ("_to_copy", "copy_")}
        if name in ("_to_copy", "copy_") and len(kinds) > 1:
            self.blocking["copy"] += 1
        elif "cuda" not in {tensor.device.type for tensor in given}:
            pass
        elif name in ("index", "index_put", "index_put_") and any(tensor.dtype == torch.bool for tensor in given):
            self.blocking["mask"] += 1
        elif name in ("nonzero", "_local_scalar_dense"):
            self.blocking["read"] += 1
        return result


def _like(tensor: Tensor) -> Tensor:
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE, memory_format=layout)


def _really(act: Callable[[], Any]) -> Any:
    with unset_fake_temporarily():
        return act()
