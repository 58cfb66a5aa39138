"""Freezing, learning rates by depth and the second phase of a run."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from fer_models import ModelError, Recipe, VGGSmallTunedConfig
from fer_models.configs.transfer_config import Transfer
from fer_models.parts.auxiliary import WithAuxiliary
from fer_models.parts.staged import Constrained, Staged
from fer_models.training.fit import Batches, Epoch, fit
from fer_models.training.state import TrainingState, new_state
from fer_models.training.weights import load_state, save_state, take_snapshot
from tests.fer_models.small_nets import changed, copied, make, names_in

Faces = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
MakeBatches = Callable[..., Batches]
SGD = Recipe(lr=0.05, weight_decay=0.1, decay_bias_and_norm=True, ema_decay=0.9)


def run(state: TrainingState, faces: Faces, batches: Batches, recipe: Recipe, **options: Any) -> list[Epoch]:
    settings: dict[str, Any] = {"epochs": 2, "seed": 5, "iterations_per_epoch": 4} | options
    return list(fit(state, batches, faces, recipe=recipe, **settings))


@pytest.mark.parametrize("protocol", [Staged, Constrained])
def test_a_net_is_recognised_by_what_python_3_12_finds(protocol: type) -> None:
    """It looks for a protocol's members as `getattr_static` does, which does not see a module's submodules."""
    net = make()
    members = {*protocol.__annotations__, *(name for name in vars(protocol) if not name.startswith("_"))}
    assert members
    for member in members:
        inspect.getattr_static(net, member)


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (1, ["stem"]),
        (3, ["stem", "group1", "group2"]),
        ("all_but_head", ["stem", "group1", "group2", "group3", "group4"]),
    ],
)
def test_frozen_stages_do_not_change_in_weights_or_statistics(
    freeze: Any, frozen: list[str], faces: Faces, batches_of: MakeBatches
) -> None:
    transfer = Transfer(weights="some", freeze=freeze)
    net = make()
    before, state = copied(net), new_state(net, SGD, transfer)
    run(state, faces, batches_of(*faces, 7), SGD, transfer=transfer)
    still = names_in(net, frozen)
    assert changed(net, before) == {name for name in before if name not in still and not name.startswith("input.")}
    assert state.ema is not None
    assert not changed(state.ema, before) & still


def test_more_stages_than_the_net_has_cannot_be_frozen(faces: Faces, batches_of: MakeBatches) -> None:
    transfer = Transfer(weights="some", freeze=6)
    with pytest.raises(ModelError, match=r"freeze: 6, but StagedNet has 5 stages below its head \(stem, group1, "):
        run(new_state(make(), SGD, transfer), faces, batches_of(*faces, 7), SGD, transfer=transfer)


def test_a_net_without_stages_cannot_freeze_any() -> None:
    with pytest.raises(ModelError, match="Linear names no stages"):
        new_state(nn.Linear(2, 2), SGD, Transfer(lr_decay_per_stage=0.5))


def test_each_stage_below_the_head_learns_at_a_smaller_rate() -> None:
    recipe = Recipe(lr=0.1, momentum=0, bias_lr_factor=2)
    net = make()
    state = new_state(net, recipe, Transfer(lr_decay_per_stage=0.5))
    rates = {
        id(parameter): group["lr_factor"] for group in state.optimizer.param_groups for parameter in group["params"]
    }
    assert rates[id(net.get_parameter("head.1.weight"))] == 1
    assert rates[id(net.get_parameter("head.1.bias"))] == 2
    assert rates[id(net.get_parameter("backbone.group4.0.conv1.weight"))] == 0.5
    assert rates[id(net.get_parameter("backbone.group1.0.norm1.weight"))] == 0.5**4
    assert rates[id(net.get_parameter("backbone.stem.0.weight"))] == 0.5**5
    assert len(rates) == len(list(net.parameters()))


def test_the_second_phase_has_its_own_rate_and_stages(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=0.05, lr_policy="cosine")
    transfer = Transfer(weights="some", freeze=3, finetune_epochs_share=0.5, finetune_lr=0.01, finetune_freeze=1)
    net = make()
    start, state = copied(net), new_state(net, recipe, transfer)
    epochs = fit(
        state,
        batches_of(*faces, 7),
        faces,
        recipe=recipe,
        transfer=transfer,
        epochs=4,
        seed=0,
        iterations_per_epoch=4,
    )
    first = [next(epochs), next(epochs)]
    before = copied(net)
    assert not changed(net, start) & names_in(net, ["stem", "group1", "group2"])
    second = [next(epochs), next(epochs)]
    moved = changed(net, before)
    assert not moved & names_in(net, ["stem"])
    assert moved >= names_in(net, ["group1", "group2", "group3", "group4", "head"])
    # Eight iterations a phase, each a cosine of its own: at the last of them (1 + cos(7 pi / 8)) / 2 = 0.0380602.
    assert first[-1].learning_rate == pytest.approx(0.05 * 0.0380602, rel=1e-5)
    assert second[-1].learning_rate == pytest.approx(0.01 * 0.0380602, rel=1e-5)


@pytest.mark.parametrize("stopped_after", [1, 2, 3])
def test_a_run_of_two_phases_resumes_to_the_last_bit(
    stopped_after: int, faces: Faces, batches_of: MakeBatches, tmp_path: Path
) -> None:
    recipe = Recipe(optimizer="adam", lr=1e-3, lr_policy="plateau", gamma=0.5, patience_epochs=0, ema_decay=0.9)
    transfer = Transfer(
        weights="some",
        freeze=2,
        lr_decay_per_stage=0.8,
        finetune_epochs_share=0.5,
        finetune_lr=1e-4,
        finetune_freeze=0,
    )
    batches, options = batches_of(*faces, 7), {"epochs": 4, "transfer": transfer}
    undisturbed = new_state(make(), recipe, transfer)
    expected = run(undisturbed, faces, batches, recipe, **options)
    stopped = new_state(make(), recipe, transfer)
    epochs = fit(stopped, batches, faces, recipe=recipe, seed=5, iterations_per_epoch=4, **options)  # type: ignore[arg-type]
    for _ in range(stopped_after):
        next(epochs)
    save_state(take_snapshot(stopped), tmp_path / "last.safetensors")
    resumed = new_state(make(seed=1), recipe, transfer)
    load_state(resumed, tmp_path / "last.safetensors")
    rest = run(resumed, faces, batches, recipe, **options)
    assert [epoch.train_loss for epoch in rest] == [epoch.train_loss for epoch in expected[stopped_after:]]
    assert changed(resumed.net, copied(undisturbed.net)) == set()
    assert resumed.plateau == undisturbed.plateau


class _Bounded(nn.Module):
    """Two linear layers, the weights of one cut at 0.05, and auxiliary logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.norm = nn.Linear(48 * 48, 7), nn.Linear(7, 7), nn.GroupNorm(1, 7)

    def forward(self, x: Tensor) -> Tensor | WithAuxiliary:
        early = self.first(x.flatten(1) / 255)
        logits = self.last(self.norm(early))
        return WithAuxiliary(logits, (early, early), 0.25) if self.training else logits

    def before_step(self) -> None:
        pass

    @torch.no_grad()
    def after_step(self) -> None:
        self.last.weight.clamp_(-0.05, 0.05)


def one_batch(faces: Faces) -> Batches:
    def batches(_: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.tensor(faces[0]).float().unsqueeze(1), torch.tensor(faces[1]).long()

    return batches


def test_auxiliary_logits_add_their_weighted_losses(faces: Faces) -> None:
    net = _Bounded()
    x, labels = next(one_batch(faces)(torch.Generator()))
    with torch.no_grad():
        answer = net(x)
        shares = [logits.log_softmax(1)[torch.arange(28), labels].mean() for logits in (answer[0], answer[1][0])]
        right = (answer.logits.argmax(1) == labels).float().mean()
    recipe = Recipe(lr=1e-9)
    (epoch,) = run(new_state(net, recipe), faces, one_batch(faces), recipe, epochs=1, iterations_per_epoch=1)
    assert epoch.train_loss == pytest.approx(-(shares[0] + 2 * 0.25 * shares[1]).item(), rel=1e-5)
    assert epoch.train_accuracy == pytest.approx(right.item())


def test_a_net_is_held_within_its_bounds_after_each_step(faces: Faces) -> None:
    recipe = Recipe(lr=0.1)
    net = _Bounded()
    run(new_state(net, recipe), faces, one_batch(faces), recipe, epochs=2, iterations_per_epoch=1)
    assert net.last.weight.abs().max() <= 0.05 + 1e-7
    assert net.first.weight.abs().max() > 0.0


def _bare_steps(recipe: Recipe, l2_layers: tuple[str, ...], x: Tensor, labels: Tensor, steps: int) -> nn.Module:
    """A net after `steps` of plain torch: the L2 is written into the loss, the decay is the optimizer's own."""
    net = make(L2_NET).train()
    weights = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in net.parameters() if parameter.ndim == 1]  # biases and batch norms
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9)
    else:
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(groups, lr=recipe.lr)
    for _ in range(steps):
        optimizer.zero_grad()
        penalty = sum(net.get_parameter(f"{name}.weight").square().sum() for name in l2_layers)
        (nn.functional.cross_entropy(net(x), labels) + L2_NET.l2 * penalty).backward()  # type: ignore[no-untyped-call]
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        optimizer.step()
    return net


L2_NET = VGGSmallTunedConfig(dropouts=(0, 0, 0, 0, 0), max_norm=1000, l2=0.02, normalisation="standardise")
# As the VGG report's Keras program has it: block 3 and the fully connected layers.
L2_LAYERS = (
    *("backbone.block3_conv1", "backbone.block3_conv2", "backbone.block3_conv3"),
    *("neck.fc6", "neck.fc7", "head"),
)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(optimizer="sgd", lr=0.01, weight_decay=0.1),
        Recipe(optimizer="adam", lr=1e-3, weight_decay=0.1),
        Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.1),
        Recipe(optimizer="sgd", lr=0.01, weight_decay=0.1, clip_norm=0.5),
    ],
    ids=["sgd", "adam", "adamw", "clipped"],
)
def test_a_nets_own_l2_is_a_term_of_the_loss_and_the_recipes_decay_reaches_every_weight(
    recipe: Recipe, faces: Faces
) -> None:
    x, labels = next(one_batch(faces)(torch.Generator()))
    net, start = make(L2_NET), copied(make(L2_NET))
    steps = 3
    run(new_state(net, recipe), faces, one_batch(faces), recipe, epochs=steps, iterations_per_epoch=1)
    bare = dict(_bare_steps(recipe, L2_LAYERS, x, labels, steps).named_parameters())
    for name, value in net.named_parameters():
        # In units of how far the weights went; Adam divides by gradients that rounding may turn around.
        moved = (bare[name] - start[name]).abs().max()
        assert (value - bare[name]).abs().max() < 0.02 * moved, name


def test_frozen_layers_keep_their_weights_whatever_their_l2_and_max_norm(faces: Faces) -> None:
    net = make(VGGSmallTunedConfig(l2=0.1, max_norm=0.1))
    transfer = Transfer(weights="some", freeze="all_but_head")
    recipe = Recipe(lr=0.01)
    before = copied(net)
    run(
        new_state(net, recipe, transfer),
        faces,
        one_batch(faces),
        recipe,
        transfer=transfer,
        epochs=1,
        iterations_per_epoch=1,
    )
    assert changed(net, before) == {"head.weight", "head.bias"}
