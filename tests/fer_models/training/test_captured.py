"""Steps that are recorded and replayed equal the usual ones to the bit; on a CPU, with a stand-in for the graph."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fer_common.captured import Captured
from fer_data import AugmentConfig
from fer_data.augmentation.batches import train_batches
from fer_data.faces import Split
from fer_models import AlexNetConfig, CompactResNetConfig, LeNetConfig, NetConfig, Recipe, VGGSmallTunedConfig
from fer_models.configs.transfer_config import Transfer
from fer_models.nets.registry import build
from fer_models.training.fit import Batches, Epoch, fit
from fer_models.training.state import TrainingState, new_state
from fer_models.training.weights import load_state, save_state, take_snapshot
from tests.replayed import Replayed

pytestmark = pytest.mark.timeout(120)

BATCH, STEPS, EPOCHS = 3, 12, 2
ALL = AugmentConfig(flip=0.5, crop_pad=4, rotate_deg=12, shift=0.1, scale=0.1, blur=0.3, brightness=0.1,
                    contrast=0.1, noise=5, cutout=2, erase=0.4, mixup=0.3, cutmix=0.3)  # fmt: skip
SGD = Recipe(optimizer="nesterov", lr=0.01, lr_policy="inv", gamma=1e-2, power=0.75, schedule="exact", bias_lr_factor=2,
             weight_decay=5e-4, batch_size=BATCH)  # fmt: skip
ADAMW = Recipe(optimizer="adamw", lr=1e-3, lr_policy="onecycle", weight_decay=0.05, ema_decay=0.99, clip_norm=1.0,
               label_smoothing=0.1, batch_size=BATCH)  # fmt: skip
CASES: dict[str, tuple[NetConfig, Recipe, AugmentConfig]] = {
    "lenet": (LeNetConfig(), SGD, AugmentConfig()),
    "alexnet": (AlexNetConfig(), SGD.model_copy(update={"ema_decay": 0.9}), AugmentConfig(flip=0.5)),
    "compact_resnet": (CompactResNetConfig(dropout=0.2), ADAMW, ALL),
    "vgg_small_tuned": (
        VGGSmallTunedConfig(),
        ADAMW.model_copy(update={"optimizer": "adam"}),
        AugmentConfig(shift=0.1),
    ),
}


@pytest.fixture
def split() -> Split:
    rng = np.random.default_rng(0)
    n = BATCH * STEPS
    images = rng.integers(0, 255, (n, 48, 48), dtype=np.uint8)
    return Split(name="train", images=images, labels=np.arange(n, dtype=np.uint8) % 7)


def begin(net: NetConfig, recipe: Recipe) -> TrainingState:
    mean = np.full((48, 48), 128, np.float32)
    return new_state(build(net, classes=7, mean_image=mean, generator=torch.Generator().manual_seed(0)), recipe)


def epochs_of(state: TrainingState, case: str, split: Split, graph: Callable[[], Replayed] | None) -> Iterator[Epoch]:
    _, recipe, augment = CASES[case]
    captured = Captured(graph, shapes=2) if graph else None
    batches: Batches = partial(train_batches, split, BATCH, augment, classes=7, captured=captured)
    return train(state, recipe, batches, split, graph)


def train(
    state: TrainingState, recipe: Recipe, batches: Batches, split: Split, graph: Callable[[], Replayed] | None
) -> Iterator[Epoch]:
    return fit(state, batches, (split.images[:7], split.labels[:7]), recipe=recipe, epochs=EPOCHS, seed=3,
               iterations_per_epoch=STEPS, graph=graph)  # fmt: skip


def content(state: TrainingState) -> list[Tensor]:
    """Everything that is trained: weights, statistics, average, the optimizer's memories."""
    nets = [state.net] + ([state.ema] if state.ema is not None else [])
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    memories = [value for one in parameters for _, value in sorted(state.optimizer.state.get(one, {}).items())]
    return [*(value for net in nets for value in net.state_dict().values()), *memories]


def assert_equal(state: TrainingState, other: TrainingState) -> None:
    for one, another in zip(content(state), content(other), strict=True):
        assert torch.equal(one, another)


def numbers(epochs: list[Epoch]) -> list[tuple[float, ...]]:
    return [(one.train_loss, one.train_accuracy, one.val_loss, one.val_accuracy) for one in epochs]


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_equal_the_usual_ones(case: str, split: Split) -> None:
    net, recipe, _ = CASES[case]
    usual, recorded = begin(net, recipe), begin(net, recipe)
    expected = list(epochs_of(usual, case, split, None))
    epochs = epochs_of(recorded, case, split, Replayed)
    first = next(epochs)
    addresses, replays = [one.data_ptr() for one in content(recorded)], Replayed.replays
    found = [first, *epochs]
    assert numbers(found) == numbers(expected)
    assert_equal(recorded, usual)
    assert Replayed.replays - replays >= 2 * STEPS - 6, "all steps and batches of the second epoch, but a mix's first"
    assert [one.data_ptr() for one in content(recorded)] == addresses, (
        "a graph uses the memory that it was recorded with"
    )


def test_a_resumed_run_equals_an_undisturbed_one(split: Split, tmp_path: Path) -> None:
    net, recipe, _ = CASES["compact_resnet"]
    usual, stopped, resumed = (begin(net, recipe) for _ in range(3))
    expected = list(epochs_of(usual, "compact_resnet", split, None))
    next(epochs_of(stopped, "compact_resnet", split, Replayed))
    save_state(take_snapshot(stopped), tmp_path / "last", {})
    load_state(resumed, tmp_path / "last")
    found = list(epochs_of(resumed, "compact_resnet", split, Replayed))
    assert numbers(found) == numbers(expected[1:])
    assert_equal(resumed, usual)


def test_a_smaller_last_batch_is_not_replayed(split: Split) -> None:
    net, recipe, augment = CASES["compact_resnet"]

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        made = list(train_batches(split, BATCH, augment, generator, classes=7))
        return iter([*made[:-1], (made[-1][0][:-1], made[-1][1][:-1])])

    usual, recorded = begin(net, recipe), begin(net, recipe)
    expected = list(train(usual, recipe, batches, split, None))
    replays = Replayed.replays
    found = list(train(recorded, recipe, batches, split, Replayed))
    assert numbers(found) == numbers(expected)
    assert_equal(recorded, usual)
    assert Replayed.replays - replays == EPOCHS * (STEPS - 1) - 4, "three to warm up, and the one that is recorded"


def test_a_phase_that_trains_other_stages_is_recorded_anew(split: Split) -> None:
    net, recipe, augment = CASES["alexnet"]
    transfer = Transfer(weights="run:night/0", freeze=2, finetune_epochs_share=0.5, finetune_freeze=0)
    states = [new_state(begin(net, recipe).net, recipe, transfer) for _ in range(2)]
    found = [
        list(fit(state, partial(train_batches, split, BATCH, augment, classes=7),
                 (split.images[:7], split.labels[:7]), recipe=recipe, epochs=EPOCHS, seed=3,
                 iterations_per_epoch=STEPS, transfer=transfer, graph=graph))
        for state, graph in zip(states, (None, Replayed), strict=True)
    ]  # fmt: skip
    assert numbers(found[0]) == numbers(found[1])
    assert_equal(*states)


@pytest.mark.parametrize("how", [{"micro_batches": 2}, {"precision": "fp16"}])
def test_what_differs_from_step_to_step_is_not_replayed(how: dict[str, object], split: Split) -> None:
    net, recipe, augment = CASES["lenet"]
    replays = Replayed.replays
    batches = partial(train_batches, split, BATCH, augment, classes=7)
    faces = (split.images[:7], split.labels[:7])
    list(fit(begin(net, recipe), batches, faces, recipe=recipe, epochs=1, seed=3, iterations_per_epoch=STEPS,
             graph=Replayed, **how))  # type: ignore[arg-type]  # fmt: skip
    assert Replayed.replays == replays
