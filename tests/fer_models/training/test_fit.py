import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from fer_models import AlexNetConfig, Diverged, LeNetConfig, ModelError, Recipe
from fer_models.errors import Cancelled
from fer_models.nets.registry import build
from fer_models.training.evaluate import predict
from fer_models.training.fit import Batches, Epoch, fit
from fer_models.training.state import TrainingState, new_state

Faces = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
MakeBatches = Callable[..., Batches]


def start(config: LeNetConfig | AlexNetConfig, recipe: Recipe) -> TrainingState:
    mean = np.full((48, 48), 128, dtype=np.float32)
    net = build(config, classes=7, mean_image=mean, generator=torch.Generator().manual_seed(0))
    return new_state(net, recipe)


def run(state: TrainingState, faces: Faces, batches: Batches, recipe: Recipe, **options: Any) -> list[Epoch]:
    settings: dict[str, Any] = {"epochs": 2, "seed": 5, "iterations_per_epoch": 2} | options
    return list(fit(state, batches, faces, recipe=recipe, **settings))


@pytest.mark.parametrize(
    ("config", "recipe"),
    [
        (LeNetConfig(), Recipe(lr=0.01)),
        (AlexNetConfig(dropout=0.0), Recipe(optimizer="adam", lr=5e-4)),
        (AlexNetConfig(norm="batch", dropout=0.0), Recipe(lr=0.01)),
    ],
    ids=["lenet", "alexnet-lrn", "alexnet-batch"],
)
def test_one_batch_is_learnt_by_heart(
    config: LeNetConfig | AlexNetConfig, recipe: Recipe, faces: Faces, batches_of: MakeBatches
) -> None:
    fourteen = (faces[0][:14], faces[1][:14])
    (batch,) = batches_of(*fourteen, 14)(torch.Generator().manual_seed(0))
    options = {"iterations_per_epoch": 20, "epochs": 2, "memory_format": "channels_last"}
    epochs = run(start(config, recipe), fourteen, lambda _: iter([batch] * 20), recipe, **options)
    assert epochs[-1].val_accuracy == 1.0
    assert epochs[-1].val_loss < 0.1 * np.log(7)


def test_an_epoch_reports_what_the_net_says(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=0.001, lr_policy="cosine")
    state = start(LeNetConfig(), recipe)
    epochs = run(state, faces, batches_of(*faces, 14), recipe)
    last = epochs[-1]
    assert [epoch.number for epoch in epochs] == [1, 2]
    assert state.epoch == 2
    np.testing.assert_allclose(last.val_probabilities, predict(state.net, faces[0]), rtol=1e-6)
    right = last.val_probabilities[np.arange(28), faces[1]]
    assert last.val_loss == pytest.approx(-np.log(right).mean(), rel=1e-5)
    assert last.val_accuracy == (last.val_probabilities.argmax(1) == faces[1]).mean()
    assert last.learning_rate == pytest.approx(0.001 * (1 + np.cos(0.75 * np.pi)) / 2)
    assert last.iterations == ((4, last.train_loss, last.learning_rate),)
    assert set(last.metrics()) == {
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "learning_rate",
        "epoch_seconds",
        "images_per_second",
    }


def test_curves_have_a_point_every_50_iterations(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=1e-4)
    small = (faces[0][:2], faces[1][:2])
    batches = batches_of(np.tile(small[0], (30, 1, 1)), np.tile(small[1], 30), 1)
    epochs = run(start(LeNetConfig(), recipe), small, batches, recipe, epochs=2, iterations_per_epoch=60)
    assert [point[0] for point in epochs[0].iterations] == [50, 60]
    assert [point[0] for point in epochs[1].iterations] == [110, 120]
    (_, first, _), (_, second, _) = epochs[0].iterations
    assert (50 * first + 10 * second) / 60 == pytest.approx(epochs[0].train_loss)


def test_a_seed_gives_the_same_run_whatever_torch_drew_before(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=0.01)
    results = []
    for noise, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(noise)
        epochs = run(start(LeNetConfig(dropout=0.5), recipe), faces, batches_of(*faces, 14), recipe, seed=seed)
        results.append([epoch.train_loss for epoch in epochs])
    assert results[0] == results[1] != results[2]


def test_fit_leaves_torchs_generator_alone(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=0.01)
    before = torch.get_rng_state()
    run(start(LeNetConfig(dropout=0.5), recipe), faces, batches_of(*faces, 14), recipe)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_others_draw_from_torchs_generator_meanwhile_changes_nothing(
    faces: Faces, batches_of: MakeBatches
) -> None:
    """As trials in other threads of the process, which build their nets."""
    recipe, made = Recipe(lr=0.01), batches_of(*faces, 14)

    def disturbed(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in made(generator):
            torch.rand(100)
            yield batch

    losses = [
        [epoch.train_loss for epoch in run(start(LeNetConfig(dropout=0.5), recipe), faces, batches, recipe)]
        for batches in (made, disturbed)
    ]
    assert losses[0] == losses[1]


def _quadratic(recipe: Recipe, config: LeNetConfig | AlexNetConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters before and after one iteration whose gradient is zero everywhere."""
    state = start(config, recipe)
    before = {name: value.clone() for name, value in state.net.named_parameters()}
    for parameter in state.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    return before, dict(state.net.named_parameters())


def test_biases_and_norms_do_not_decay() -> None:
    recipe = Recipe(lr=0.1, momentum=0, weight_decay=0.5)
    before, after = _quadratic(recipe, AlexNetConfig(norm="batch"))
    for name, value in before.items():
        decays = name.endswith("weight") and "batch_norms" not in name
        # One step of decay takes 0.1 * 0.5 = 5 % away.
        torch.testing.assert_close(after[name], value * 0.95 if decays else value)


def test_everything_decays_when_asked() -> None:
    recipe = Recipe(lr=0.1, momentum=0, weight_decay=0.5, decay_bias_and_norm=True)
    before, after = _quadratic(recipe, AlexNetConfig(norm="batch"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value * 0.95)


def _moves(recipe: Recipe, faces: Faces, batches: Batches, **options: Any) -> dict[str, Tensor]:
    state = start(LeNetConfig(), recipe)
    before = {name: value.clone() for name, value in state.net.named_parameters()}
    run(state, faces, batches, recipe, epochs=1, iterations_per_epoch=1, **options)
    return {name: value.detach() - before[name] for name, value in state.net.named_parameters()}


def test_biases_learn_at_their_own_rate(faces: Faces, batches_of: MakeBatches) -> None:
    once = _moves(Recipe(lr=0.01), faces, batches_of(*faces, 28))
    twice = _moves(Recipe(lr=0.01, bias_lr_factor=2), faces, batches_of(*faces, 28))
    for name, moved in once.items():
        factor = 2 if name.endswith("bias") else 1
        torch.testing.assert_close(twice[name], moved * factor, rtol=1e-3, atol=1e-7)


def test_clipping_bounds_the_step(faces: Faces, batches_of: MakeBatches) -> None:
    moves = _moves(Recipe(lr=1.0, momentum=0, clip_norm=0.01), faces, batches_of(*faces, 28))
    length = torch.cat([move.flatten() for move in moves.values()]).norm().item()
    assert length == pytest.approx(0.01, rel=1e-3)


def test_balanced_weights_even_out_the_classes(faces: Faces, batches_of: MakeBatches) -> None:
    images, labels = faces[0][:10], faces[1][:10]
    # Classes 0 to 2 stand there twice, 3 to 6 once: 10 / (7 * 2) and 10 / (7 * 1).
    weights = np.array([10 / 14] * 3 + [10 / 7] * 4)
    recipe = Recipe(lr=1e-9, class_weights="balanced")
    state = start(LeNetConfig(), recipe)
    right = predict(state.net, images)[np.arange(10), labels]
    expected = (-np.log(right) * weights[labels]).sum() / weights[labels].sum()
    counts = np.bincount(labels, minlength=7).tolist()
    batches = batches_of(images, labels, 10)
    epochs = run(state, faces, batches, recipe, epochs=1, iterations_per_epoch=1, class_counts=counts)
    assert epochs[0].train_loss == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ModelError, match="an image of every class"):
        run(start(LeNetConfig(), recipe), faces, batches, recipe)


def test_soft_labels_are_learnt_as_their_shares_say(faces: Faces, batches_of: MakeBatches) -> None:
    images, labels = faces[0][:7], faces[1][:7]
    shares = np.random.default_rng(0).dirichlet(np.ones(7), 7).astype(np.float32)
    recipe = Recipe(lr=1e-9)
    state = start(LeNetConfig(), recipe)
    logarithms = np.log(predict(state.net, images))
    soft = [(torch.tensor(images).float().unsqueeze(1), torch.tensor(shares))]
    (epoch,) = run(state, (images, shares), lambda _: iter(soft), recipe, epochs=1, iterations_per_epoch=1)
    assert epoch.train_loss == pytest.approx(-(shares * logarithms).sum(1).mean(), rel=1e-5)
    assert epoch.val_loss == pytest.approx(epoch.train_loss, rel=1e-4)
    assert epoch.train_accuracy == (logarithms.argmax(1) == shares.argmax(1)).mean() == epoch.val_accuracy
    for options in ({}, {"class_weights": "balanced", "label_smoothing": 0.1}):
        recipe = Recipe(lr=1e-9, **options)
        hard, whole = (
            [(torch.tensor(images).float().unsqueeze(1), torch.tensor(answer))]
            for answer in (labels.astype(np.int64), np.eye(7, dtype=np.float32)[labels])
        )
        losses = [
            run(
                start(LeNetConfig(), recipe),
                faces,
                lambda _, batch=batch: iter(batch),
                recipe,
                epochs=1,
                iterations_per_epoch=1,
                class_counts=[1, 2, 3, 4, 5, 6, 7],
            )[0].train_loss
            for batch in (hard, whole)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("labels", ["whole", "shares"])
@pytest.mark.parametrize("options", [{}, {"class_weights": "balanced", "label_smoothing": 0.1, "clip_norm": 1.0}])
def test_a_batch_in_parts_is_the_whole_batch_within_rounding(
    faces: Faces, labels: str, options: dict[str, Any]
) -> None:
    x = torch.tensor(faces[0][:13]).float().unsqueeze(1)  # the second part is the smaller one
    shares = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(7), 13), dtype=torch.float32)
    y = torch.tensor(faces[1][:13]).long() if labels == "whole" else shares
    recipe = Recipe(lr=0.01, ema_decay=0.9, **options)
    nets, epochs = [], []
    for parts in (1, 2):
        state = start(LeNetConfig(), recipe)
        (epoch,) = run(state, faces, lambda _: iter([(x, y)] * 4), recipe, epochs=1, iterations_per_epoch=4,
                       class_counts=[1, 2, 3, 4, 5, 6, 7], micro_batches=parts)  # fmt: skip
        nets.append(state.net.state_dict())
        epochs.append(epoch)
    whole, halves = epochs
    assert halves.train_loss == pytest.approx(whole.train_loss, rel=1e-5)
    assert halves.train_accuracy == whole.train_accuracy
    np.testing.assert_allclose(halves.val_probabilities, whole.val_probabilities, atol=1e-5)
    for name, value in nets[0].items():
        torch.testing.assert_close(nets[1][name], value, rtol=1e-4, atol=1e-6)


def test_the_average_is_what_validation_sees(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=0.01, ema_decay=0.999)
    state = start(AlexNetConfig(norm="batch"), recipe)
    first = state.net.get_parameter("head.fc8.bias").clone()
    epochs = run(state, faces, batches_of(*faces, 7), recipe, epochs=1, iterations_per_epoch=4)
    assert state.ema is not None
    # First brought up to date at the fourth iteration, where an iteration's decay is (1 + 3) / (10 + 3).
    kept = (4 / 13) ** 4
    now = state.net.get_parameter("head.fc8.bias")
    torch.testing.assert_close(state.ema.get_parameter("head.fc8.bias"), first * kept + now.detach() * (1 - kept))
    running = "batch_norms.0.running_mean"
    torch.testing.assert_close(state.ema.state_dict()[running], state.net.state_dict()[running] * (1 - kept))
    np.testing.assert_allclose(epochs[0].val_probabilities, predict(state.ema, faces[0]), rtol=1e-5)
    assert state.judged_net is state.ema


def _poisoned(batches: Batches, at: int) -> Batches:
    def poisoned(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for index, (x, y) in enumerate(batches(generator)):
            yield (x * float("nan") if index == at else x), y

    return poisoned


def test_divergence_names_the_metric_and_the_step(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=1e-3)
    state = start(LeNetConfig(), recipe)
    run(state, faces, batches_of(*faces, 7), recipe, epochs=1, iterations_per_epoch=4)
    with pytest.raises(Diverged, match="diverged: train_loss is nan at epoch 2 step 7") as caught:
        run(state, faces, _poisoned(batches_of(*faces, 7), 2), recipe, epochs=2, iterations_per_epoch=4)
    assert (caught.value.metric, caught.value.epoch, caught.value.step) == ("train_loss", 2, 7)
    assert state.epoch == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # it crosses processes


def test_too_high_a_rate_diverges(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=1e6)
    with pytest.raises(Diverged, match=r"_loss is (nan|inf) at epoch"):
        run(start(LeNetConfig(), recipe), faces, batches_of(*faces, 4), recipe, epochs=5, iterations_per_epoch=7)


def test_a_broken_average_diverges_in_validation(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=1e-3, ema_decay=0.9)
    state = start(LeNetConfig(), recipe)
    assert state.ema is not None
    nn.init.constant_(state.ema.get_parameter("head.fc2.bias"), float("nan"))
    with pytest.raises(Diverged, match="val_loss is nan at epoch 1 step 2"):
        run(state, faces, batches_of(*faces, 14), recipe)


def test_a_batch_is_cut_short_before_its_backward_pass(faces: Faces, batches_of: MakeBatches) -> None:
    """A trial that is paused keeps its slot for no longer than a forward pass."""
    recipe = Recipe(lr=1e-3)
    state = start(LeNetConfig(), recipe)
    before = [parameter.clone() for parameter in state.net.parameters()]
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        run(state, faces, batches_of(*faces, 14), recipe, is_cancelled=lambda: next(asked))
    assert all(parameter.grad is None for parameter in state.net.parameters())
    assert all(map(torch.equal, before, state.net.parameters()))


def test_a_promise_of_batches_is_held(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=1e-3)
    with pytest.raises(ModelError, match="epoch 1 has 2 batches, expected 3"):
        run(start(LeNetConfig(), recipe), faces, batches_of(*faces, 14), recipe, iterations_per_epoch=3)


@pytest.mark.parametrize("config", [LeNetConfig(), AlexNetConfig(), AlexNetConfig(norm="batch")])
def test_bf16_and_channels_last_agree_with_fp32(config: LeNetConfig | AlexNetConfig, faces: Faces) -> None:
    net = start(config, Recipe(lr=0.1)).net
    exact = predict(net, faces[0])
    quick = predict(net, faces[0], precision="bf16", memory_format="channels_last", batch_size=9)
    np.testing.assert_allclose(quick, exact, atol=0.02)
    np.testing.assert_allclose(exact.sum(1), 1, rtol=1e-5)


def test_fp16_with_a_scaled_loss_trains_as_fp32(faces: Faces, batches_of: MakeBatches) -> None:
    recipe = Recipe(lr=0.005, clip_norm=1.0)
    losses = []
    for precision in ("fp32", "fp16"):
        state = start(LeNetConfig(), recipe)
        losses.append(
            [epoch.train_loss for epoch in run(state, faces, batches_of(*faces, 14), recipe, precision=precision)]
        )
    np.testing.assert_allclose(losses[1], losses[0], atol=0.02)
    assert losses[1] != losses[0]


def test_a_step_whose_fp16_gradients_overflow_is_left_out_and_the_scale_halved(
    faces: Faces, batches_of: MakeBatches
) -> None:
    recipe = Recipe(lr=0.005, clip_norm=1.0)
    state = start(LeNetConfig(), recipe)
    state.loss_scale = torch.amp.GradScaler("cpu", init_scale=2.0**40).state_dict()
    before = {name: value.clone() for name, value in state.net.named_parameters()}
    run(state, faces, batches_of(*faces, 28), recipe, epochs=1, iterations_per_epoch=1, precision="fp16")
    assert state.loss_scale["scale"] == 2.0**39
    assert all(torch.equal(value, before[name]) for name, value in state.net.named_parameters())


def test_faces_may_be_read_only(faces: Faces) -> None:
    faces[0].flags.writeable = False
    assert predict(start(LeNetConfig(), Recipe(lr=0.1)).net, faces[0]).shape == (28, 7)
