"""Builds the nets of a sweep, makes one step with each, and prints the expected cost. Writes nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fer_data import Faces, open_cached
from fer_data.augmentation.batches import batches_per_epoch, train_batches
from fer_data.cache.preprocess_cache import preprocessed
from fer_models.nets.registry import count_parameters
from fer_models.training.evaluate import look
from fer_models.training.fit import fit
from fer_models.training.state import TrainingState, new_state
from sweeps.config import TrialConfig
from sweeps.planning.gpu_share import HARMLESS_LR
from sweeps.planning.plan import Plan, configurations
from sweeps.time_left import duration
from sweeps.trial.build_net import fit_arguments, new_net

_SAMPLES = 20
_STEPS_TIMED = 3


@dataclass(frozen=True)
class StepCost:
    """Measurements of one step. `peak_bytes` counts weights, gradients, optimizer state and stored activations."""

    title: str
    config: TrialConfig
    parameters: int
    peak_bytes: int
    images_per_second: float


def dry_run(plan: Plan, console: Console) -> None:
    """Measure every baseline and 20 sampled configurations; print a table and the expected time of the sweep."""
    torch.set_num_threads(plan.spec.threads)
    table = Table(title=f"dry run of {plan.space.name} on {plan.spec.dataset}", header_style="bold")
    for heading in ("configuration", "net", "parameters", "memory", "images/s", "epoch"):
        table.add_column(heading, justify="left" if heading in ("configuration", "net") else "right")
    costs = []
    for title, config in configurations(plan, _SAMPLES):
        faces = open_cached(preprocessed(Path(plan.spec.faces), config.preprocess))
        cost = measure(faces, title, config, plan.spec.device)
        costs.append(cost)
        table.add_row(
            cost.title,
            f"{config.net.name} {config.precision} {config.memory_format}, batch {config.recipe.batch_size}",
            f"{cost.parameters:,}",
            f"{cost.peak_bytes / 2**20:,.0f} MiB",
            f"{cost.images_per_second:,.0f}",
            duration(_epoch_seconds(plan, cost)),
        )
    console.print(table)
    alone = "; speeds and times are those of one worker" if plan.slots.workers > 1 else ""
    console.print(f"{plan.slots.of_a_trial}{alone}")
    console.print(_estimate(plan, costs))
    for note in plan.start.notes:
        console.print(f"from {note}")
    for note in plan.edit.notes if plan.edit else ():
        console.print(note)
    for line in plan.budgets.lines(plan.recorded):
        console.print(f"budget: {line}")
    console.print("nothing was written")


def measure(faces: Faces, title: str, config: TrialConfig, device: str) -> StepCost:
    """One warm-up step that measures memory, and a few timed steps, each as a separate epoch."""
    recipe, classes = config.recipe.model_copy(update={"lr": HARMLESS_LR}), len(faces.classes)
    net = new_net(config, faces)
    parameters = count_parameters(net)  # before stages are frozen
    state = new_state(net, recipe, config.transfer)
    steps = fit(
        state,
        lambda generator: islice(
            train_batches(faces.train, recipe.batch_size, config.augment, generator, device, classes=classes), 1
        ),
        (faces.val.images[:2], faces.val.labels[:2]),
        epochs=1 + _STEPS_TIMED,
        seed=0,
        iterations_per_epoch=1,
        device=device,
        **fit_arguments(config.model_copy(update={"recipe": recipe}), faces),
    )
    with _bytes_kept() as kept:
        next(steps)
    rate = statistics.median(step.images_per_second for step in steps)
    return StepCost(title, config, parameters, _held_bytes(state) + sum(kept), rate)


@contextmanager
def _bytes_kept() -> Iterator[list[int]]:
    """Bytes of the storages that the forward pass keeps for the backward pass."""
    kept: list[int] = []
    seen: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept.append(storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _held_bytes(state: TrainingState) -> int:
    """Bytes of weights, gradients, running average and optimizer state."""
    nets: list[nn.Module] = [net for net in (state.net, state.ema) if net is not None]
    tensors = [tensor for net in nets for tensor in net.state_dict().values()]
    tensors += [parameter.grad for parameter in state.net.parameters() if parameter.grad is not None]
    tensors += [value for memory in state.optimizer.state.values() for value in memory.values()]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def _epoch_seconds(plan: Plan, cost: StepCost) -> float:
    size, faces = cost.config.recipe.batch_size, plan.faces
    trained = batches_per_epoch(faces.train, size, cost.config.augment) * size
    views = sum(1 for _ in look(torch.zeros(1, 1, 1, 1), cost.config.recipe.views))
    # Evaluating a view of a face costs the forward pass, about a third of a training step.
    return (trained + len(faces.val) * views / 3) / cost.images_per_second


def _estimate(plan: Plan, costs: list[StepCost]) -> str:
    spec, space = plan.spec, plan.space
    own = sum(_epoch_seconds(plan, cost) * length for cost, length in zip(costs, spec.baseline_epochs, strict=False))
    sampled = (spec.trials - len(spec.baseline_epochs)) * statistics.mean(
        _epoch_seconds(plan, p) for p in costs[len(space.baselines) :]
    )
    own, sampled = own * spec.members, sampled * spec.members
    whole = (own + sampled * spec.max_epochs) / plan.at_once
    what = f"for {spec.trials} trials, {plan.at_once} at once"
    epochs = space.expected_epochs(spec.max_epochs)
    if epochs is None:
        return f"about {duration(whole)} {what}" + ("" if spec.pruner == "none" else ", without pruning")
    pruned = (own + sampled * epochs) / plan.at_once
    later = "" if spec.pruner == "one-epoch" else f" and one in {space.later_kept_one_in} each later rung"
    return (
        f"about {duration(pruned)} {what}, if one in {space.first_kept_one_in} passes the first rung{later}; "
        f"{duration(whole)} without pruning"
    )
