"""Expected rates are worked out by hand from Caffe's formulas (the comment above SGDSolver::GetLearningRate)."""

import pytest
import torch

from fer_models import Recipe
from fer_models.configs.transfer_config import Transfer
from fer_models.training.schedule import lasting_epochs, learning_rate, what_spans
from fer_models.training.state import Plateau

STEP = Recipe(
    lr=0.01, lr_policy="step", gamma=0.1, step_iterations=10_000, reference_iterations=50_000, schedule="scaled"
)
INV = Recipe(lr=0.01, lr_policy="inv", gamma=1e-4, power=0.75, reference_iterations=10_000, schedule="scaled")


@pytest.mark.parametrize(
    ("iteration", "rate"), [(0, 0.01), (199, 0.01), (200, 1e-3), (399, 1e-3), (400, 1e-4), (999, 1e-6)]
)
def test_a_scaled_step_falls_at_each_fifth_of_our_run(iteration: int, rate: float) -> None:
    assert learning_rate(STEP, iteration, 1000) == pytest.approx(rate)


@pytest.mark.parametrize("iterations", [5, 35, 1105, 3335])
def test_a_scaled_step_is_never_late_by_rounding(iterations: int) -> None:
    fifth = iterations // 5
    for number in range(1, 5):
        assert learning_rate(STEP, number * fifth - 1, iterations) == pytest.approx(0.01 * 0.1 ** (number - 1))
        assert learning_rate(STEP, number * fifth, iterations) == pytest.approx(0.01 * 0.1**number)


@pytest.mark.parametrize(("iteration", "rate"), [(0, 0.01), (9_999, 0.01), (10_000, 1e-3), (20_000, 1e-4)])
def test_an_exact_step_keeps_its_iterations(iteration: int, rate: float) -> None:
    exact = STEP.model_copy(update={"schedule": "exact"})
    assert learning_rate(exact, iteration, 1000) == pytest.approx(rate)


def test_inv_by_hand() -> None:
    # At the report's end (1 + 1e-4 * 10,000) ^ -0.75 = 2 ^ -0.75 = 0.594604; half-way 1.5 ^ -0.75 = 0.737788.
    assert learning_rate(INV, 500, 1000) == pytest.approx(0.00737788, rel=1e-5)
    assert learning_rate(INV, 1000, 1000) == pytest.approx(0.00594604, rel=1e-5)
    exact = INV.model_copy(update={"schedule": "exact"})
    # (1 + 0.05) ^ -0.75 = 0.964068
    assert learning_rate(exact, 500, 1000) == pytest.approx(0.00964068, rel=1e-5)


# Both solvers as published: ybch14/Facial-Expression-Recognition-ResNet (pretrain) and bvlc_googlenet/quick_solver.
MULTISTEP = Recipe(
    lr=0.001,
    lr_policy="multistep",
    gamma=0.1,
    step_iterations=(150_000, 300_000, 450_000, 600_000, 750_000),
    reference_iterations=1_800_000,
)
POLY = Recipe(lr=0.01, lr_policy="poly", power=0.5, reference_iterations=2_400_000)


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [(0, 1e-3), (149_999, 1e-3), (150_000, 1e-4), (299_999, 1e-4), (300_000, 1e-5), (750_000, 1e-8), (1_799_999, 1e-8)],
)
def test_multistep_falls_at_its_own_iterations(iteration: int, rate: float) -> None:
    exact = MULTISTEP.model_copy(update={"schedule": "exact"})
    assert learning_rate(exact, iteration, 10) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("iteration", "rate"), [(0, 1e-3), (99, 1e-3), (100, 1e-4), (200, 1e-5), (499, 1e-7), (500, 1e-8), (1199, 1e-8)]
)
def test_a_scaled_multistep_falls_at_each_twelfth_of_our_run_until_five_are_over(iteration: int, rate: float) -> None:
    assert learning_rate(MULTISTEP, iteration, 1200) == pytest.approx(rate)


def test_poly_by_hand() -> None:
    # A quarter through sqrt(3/4) = 0.8660254, three quarters through sqrt(1/4) = 0.5.
    for iteration, rate in ((0, 0.01), (25, 0.008660254), (75, 0.005), (99, 0.001)):
        assert learning_rate(POLY, iteration, 100) == pytest.approx(rate)
    exact = POLY.model_copy(update={"schedule": "exact"})
    for iteration, rate in ((600_000, 0.008660254), (1_800_000, 0.005), (2_400_000, 0.0), (3_000_000, 0.0)):
        assert learning_rate(exact, iteration, 100) == pytest.approx(rate)


def test_constant_and_cosine_by_hand() -> None:
    assert learning_rate(Recipe(lr=0.3), 77, 100) == 0.3
    cosine = Recipe(lr=0.4, lr_policy="cosine")
    assert [learning_rate(cosine, i, 60) for i in (0, 20, 30, 40)] == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_onecycle_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    # torch peaks at index pct_start * total_steps - 1 and ends at total_steps - 1: here at 30 and 100.
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=101, pct_start=31 / 101, cycle_momentum=False
    )
    ours = Recipe(lr=0.1, lr_policy="onecycle")
    for iteration in range(100):
        assert learning_rate(ours, iteration, 100) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        theirs.step()


def test_plateau_lowers_after_its_patience() -> None:
    recipe = Recipe(lr=0.1, lr_policy="plateau", gamma=0.5, patience_epochs=1)
    plateau = Plateau()
    rates = []
    for val_accuracy in (0.3, 0.4, 0.4, 0.39, 0.41, 0.41, 0.2, 0.2, 0.2):
        plateau.update(val_accuracy, recipe)
        rates.append(learning_rate(recipe, 5, 10, plateau.factor))
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.0125]


def test_a_constant_rate_has_no_reductions() -> None:
    assert learning_rate(Recipe(lr=0.01), 0, 10, plateau_factor=0.1) == 0.01


def test_wsd_by_hand() -> None:
    wsd = Recipe(lr=0.4, lr_policy="wsd")
    rates = [learning_rate(wsd, iteration, 40, epochs=10) for iteration in range(40)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4]), "up over the first epoch"
    assert set(rates[3:33]) == {0.4}
    # 8 iterations of cooldown: 1 - sqrt(j / 8).
    assert rates[33:36] == pytest.approx([0.4 * (1 - 0.125**0.5), 0.2, 0.4 * (1 - 0.375**0.5)])
    assert rates[-1] == pytest.approx(0.4 * (1 - 0.875**0.5))
    longer = [learning_rate(wsd, iteration, 80, epochs=20) for iteration in range(80)]
    assert longer[:32] == rates[:32]


TRANSFER = Transfer()


@pytest.mark.parametrize(
    ("recipe", "lasting"),
    [
        (Recipe(lr=0.1), [1, 2, 6, 10]),
        (Recipe(lr=0.1, lr_policy="wsd"), [0, 1, 5, 8]),
        (Recipe(lr=0.1, lr_policy="plateau", gamma=0.5, patience_epochs=1), [1, 2, 6, 10]),
        (STEP.model_copy(update={"schedule": "exact"}), [1, 2, 6, 10]),
        (STEP, [0, 0, 0, 0]),
        (Recipe(lr=0.1, lr_policy="cosine"), [0, 0, 0, 0]),
        (Recipe(lr=0.1, lr_policy="onecycle"), [0, 0, 0, 0]),
    ],
)
def test_the_epochs_that_a_longer_run_has_too_have_its_rates(recipe: Recipe, lasting: list[int]) -> None:
    assert [lasting_epochs(recipe, TRANSFER, epochs) for epochs in (1, 2, 6, 10)] == lasting
    same = 4 * lasting_epochs(recipe, TRANSFER, 6)
    rates = [[learning_rate(recipe, i, 4 * epochs, epochs=epochs) for i in range(same)] for epochs in (6, 7, 20)]
    assert rates[0] == rates[1] == rates[2]
    assert (what_spans(recipe, TRANSFER) is None) == (lasting[-1] > 0)


def test_a_second_phase_spans_the_run() -> None:
    two_phases = Transfer(weights="imagenet", freeze=1, finetune_epochs_share=0.3, finetune_lr=0.001)
    assert lasting_epochs(Recipe(lr=0.1), two_phases, 10) == 0
    assert what_spans(Recipe(lr=0.1), two_phases) == "finetune_epochs_share"
