"""The loss with teachers: labels [n, 2 * classes]."""

import pytest
import torch
from torch import Tensor

from fer_models import Recipe
from fer_models.training.losses import count_right, cross_entropy, total_weight, training_loss

LOGITS = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 0.25], [3.0, -2.0, 1.0]], requires_grad=True)
LABELS = torch.tensor([1, 2, 0])
TAUGHT = torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1]])
BOTH = torch.cat((torch.eye(3)[LABELS], TAUGHT), 1)
WEIGHT = torch.tensor([0.5, 1.0, 3.0])


def distilled(share: float, temperature: float) -> Recipe:
    return Recipe(lr=0.1, distill="night", distill_share=share, distill_temperature=temperature, label_smoothing=0.1)


def gradient(loss: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, LOGITS)
    return found


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_of_the_teachers_term(temperature: float) -> None:
    """Temperature * (student - teachers), each at the temperature: the square times 1 / temperature."""
    student = (LOGITS / temperature).softmax(1)
    expected = temperature * (student - TAUGHT) / len(LOGITS)
    loss = training_loss(LOGITS, BOTH, distilled(1.0, temperature))
    torch.testing.assert_close(gradient(loss), expected.detach())
    agreed = torch.cat((torch.eye(3)[LABELS], student.detach()), 1)
    assert training_loss(LOGITS, agreed, distilled(1.0, temperature)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_the_labels_have_the_rest_of_the_loss(weight: Tensor | None) -> None:
    own = cross_entropy(LOGITS, LABELS, weight, 0.1)
    taught = training_loss(LOGITS, BOTH, distilled(1.0, 2.0), weight)
    mixed = training_loss(LOGITS, BOTH, distilled(0.25, 2.0), weight)
    torch.testing.assert_close(mixed, 0.75 * own + 0.25 * taught)
    torch.testing.assert_close(training_loss(LOGITS, LABELS, distilled(0.25, 2.0), weight), own)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_parts_of_a_batch_add_up_to_it(weight: Tensor | None) -> None:
    recipe, whole = distilled(0.5, 2.0), total_weight(BOTH, weight)
    parts = [
        training_loss(LOGITS[part], BOTH[part], recipe, weight) * total_weight(BOTH[part], weight) / whole
        for part in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), training_loss(LOGITS, BOTH, recipe, weight))


def test_right_answers_are_those_of_the_labels() -> None:
    assert count_right(LOGITS, BOTH).item() == count_right(LOGITS, LABELS).item() == 2
