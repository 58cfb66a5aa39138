import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from fer_models.training import state

_TRAIN_A_STEP = """
import sys
import numpy as np
import torch
from fer_models import LeNetConfig, Recipe
from fer_models.nets.registry import build
from fer_models.training.fit import fit
from fer_models.training.state import new_state

faces, labels = np.zeros((7, 48, 48), dtype=np.uint8), np.arange(7, dtype=np.uint8)
net = build(LeNetConfig(), classes=7, mean_image=np.zeros((48, 48), dtype=np.float32), generator=torch.Generator())
batch = torch.zeros(7, 1, 48, 48), torch.arange(7)
for optimizer in ("sgd", "nesterov", "adam", "adamw"):
    recipe = Recipe(lr=0.01, optimizer=optimizer, ema_decay=0.9)
    state = new_state(net, recipe)
    for _ in fit(state, lambda _: iter([batch]), (faces, labels), recipe=recipe, epochs=1, seed=1, iterations_per_epoch=1):
        pass
print("torch._dynamo" in sys.modules)
"""


def test_training_does_not_import_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", _TRAIN_A_STEP], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_an_optimizer_steps_as_that_of_pytorch(name: str) -> None:
    ours, theirs = (_after_three_steps(getattr(kind, name)) for kind in (state, torch.optim))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def _after_three_steps(kind: type[torch.optim.Optimizer]) -> list[Tensor]:
    """Weights and the optimizer's own tensors, with state_dict and load_state_dict between the steps."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Linear(5, 3, bias=False)
    net.weight.data = torch.rand(3, 5, generator=generator)
    options = {"momentum": 0.9} if kind.__name__ == "SGD" else {}
    optimizer = kind(net.parameters(), lr=0.1, weight_decay=0.01, fused=True, **options)  # type: ignore[call-arg]
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.rand(4, 5, generator=generator)).square().sum().backward()
        optimizer.step()
        saved = optimizer.state_dict()
        optimizer.load_state_dict(saved)
    return [net.weight.data, *(value for value in saved["state"][0].values() if isinstance(value, Tensor))]
