"""Weights and training states on disk: safetensors, written atomically, never pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_common.transfers import copy_together
from fer_models.errors import ModelError
from fer_models.training.state import Plateau, TrainingState, laid_out_as
from fer_models.training.tensor_file import read_tensors, write_tensors

_NET, _EMA, _OPTIMIZER = "net.", "ema.", "optimizer."
_SGD_KEYS = {"momentum_buffer"}
_ADAM_KEYS = {"step", "exp_avg", "exp_avg_sq"}


def save_weights(net: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write the parameters and buffers of `net`, with a checksum over them and `metadata`.

    Raises:
        ModelError: the file cannot be written; an earlier file of that name stays.
    """
    write_tensors(path, dict(net.state_dict()), metadata)


def load_weights(net: nn.Module, path: Path) -> dict[str, str]:
    """Load a file of `save_weights` into `net` and return its metadata. On an error `net` is unchanged.

    Raises:
        ModelError: missing, truncated, corrupt or unsafe file, or one of another net.
    """
    tensors, metadata = read_tensors(path)
    _check_names_and_shapes(path, dict(net.state_dict()), tensors)
    net.load_state_dict(tensors)
    return metadata


@dataclass(frozen=True)
class Snapshot:
    """A copy of a training state after `epoch`, on the CPU, so that the state itself can be trained further."""

    epoch: int
    plateau: Plateau
    loss_scale: dict[str, float]
    tensors: dict[str, Tensor]

    def __reduce__(self) -> tuple[Any, ...]:
        # The tensors share one memory block, which pickle would write for each of them.
        arrays = {name: tensor.numpy() for name, tensor in self.tensors.items()}
        return _of_arrays, (self.epoch, self.plateau, self.loss_scale, arrays)

    def save_judged_net(self, path: Path, metadata: dict[str, str]) -> None:
        """`save_weights` of the state's `judged_net`."""
        tensors = dict(self.tensors)
        write_tensors(path, _take(tensors, _EMA) or _take(tensors, _NET), metadata)


def _of_arrays(
    epoch: int, plateau: Plateau, loss_scale: dict[str, float], arrays: dict[str, npt.NDArray[Any]]
) -> Snapshot:
    return Snapshot(epoch, plateau, loss_scale, {name: torch.from_numpy(array) for name, array in arrays.items()})


def take_snapshot(state: TrainingState) -> Snapshot:
    """Copy the whole `state`."""
    tensors = _state_tensors(state)
    copies = copy_together(list(tensors.values()), "cpu")
    return Snapshot(
        state.epoch, replace(state.plateau), dict(state.loss_scale), dict(zip(tensors, copies, strict=True))
    )


def save_state(snapshot: Snapshot, path: Path, extra: dict[str, Any] | None = None) -> None:
    """Write a whole state to one file, together with `extra` (JSON values).

    Raises:
        ModelError: the file cannot be written; an earlier file of that name stays.
    """
    about = {"epoch": snapshot.epoch, "plateau": asdict(snapshot.plateau), "loss_scale": snapshot.loss_scale}
    metadata = {"state": json.dumps(about), "extra": json.dumps(extra or {})}
    write_tensors(path, snapshot.tensors, metadata)


def load_state(state: TrainingState, path: Path) -> dict[str, Any]:
    """Restore a saved state into `state`, which has the same net and recipe, and return its `extra`.

    On an error `state` is unchanged.

    Raises:
        ModelError: missing, truncated, corrupt or unsafe file, or one of another net or recipe.
    """
    tensors, metadata = read_tensors(path)
    if "state" not in metadata:
        raise ModelError(f"{path}: has only weights, no training state; give the trial's last.safetensors")
    memories = _take(tensors, _OPTIMIZER)
    parameters = _optimizer_parameters(state)
    _check_names_and_shapes(path, _net_tensors(state), tensors)
    _check_optimizer(path, state, memories)
    state.net.load_state_dict(_take(tensors, _NET))
    if state.ema is not None:
        state.ema.load_state_dict(_take(tensors, _EMA))
    state.optimizer.state.clear()
    for name, value in memories.items():
        index, key = name.split(".")
        parameter = parameters[int(index)]
        state.optimizer.state[parameter][key] = laid_out_as(parameter, value)
    about = json.loads(metadata["state"])
    state.epoch, state.plateau = about["epoch"], Plateau(**about["plateau"])
    state.loss_scale = about.get("loss_scale", {})  # earlier versions had none
    extra: dict[str, Any] = json.loads(metadata["extra"])
    return extra


def _net_tensors(state: TrainingState) -> dict[str, Tensor]:
    tensors = {_NET + name: value for name, value in state.net.state_dict().items()}
    if state.ema is not None:
        tensors |= {_EMA + name: value for name, value in state.ema.state_dict().items()}
    return tensors


def _state_tensors(state: TrainingState) -> dict[str, Tensor]:
    tensors = _net_tensors(state)
    for index, parameter in enumerate(_optimizer_parameters(state)):
        for key, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{index}.{key}"] = value
    return tensors


def _optimizer_parameters(state: TrainingState) -> list[Tensor]:
    return [parameter for group in state.optimizer.param_groups for parameter in group["params"]]


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors whose names begin with `prefix` from `tensors`, and return them without the prefix."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _check_optimizer(path: Path, state: TrainingState, memories: dict[str, Tensor]) -> None:
    parameters = _optimizer_parameters(state)
    keys = _SGD_KEYS if isinstance(state.optimizer, torch.optim.SGD) else _ADAM_KEYS
    for name, value in memories.items():
        index, _, key = name.partition(".")
        fits = index.isdigit() and int(index) < len(parameters) and key in keys
        if not fits or value.shape not in (parameters[int(index)].shape, torch.Size([])):
            kind = type(state.optimizer).__name__
            raise ModelError(f"{path}: its optimizer tensor '{name}' does not belong to this recipe's {kind}")


def _check_names_and_shapes(path: Path, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    faults = []
    if missing or unexpected:
        names = ", ".join([f"-{name}" for name in missing[:3]] + [f"+{name}" for name in unexpected[:3]])
        faults.append(f"missing {len(missing)}, unexpected {len(unexpected)} ({names})")
    for name in expected.keys() & found.keys():
        if expected[name].shape != found[name].shape:
            shapes = f"{tuple(expected[name].shape)} vs {tuple(found[name].shape)}"
            faults.append(f"{name} {shapes} in the file")
    if faults:
        raise ModelError(f"{path}: weights of another net: {'; '.join(sorted(faults))}")
