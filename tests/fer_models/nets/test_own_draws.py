"""Every net draws from the training's own generator: that of the process is also that of trials in other threads."""

import numpy as np
import pytest
import torch

from fer_common.own_draws import drawing_from
from fer_models import NET_CONFIGS, ModelError
from fer_models.nets.registry import build

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("name", NET_CONFIGS)
def test_a_step_leaves_the_generator_of_the_process_alone(name: str) -> None:
    config = NET_CONFIGS[name]()
    if hasattr(config, "dropout"):
        config = config.model_copy(update={"dropout": 0.5})
    try:
        net = build(config, classes=7, mean_image=np.full((48, 48), 128, np.float32),
                    generator=torch.Generator().manual_seed(0))  # fmt: skip
    except ModelError as error:
        pytest.skip(str(error))
    faces = torch.rand(2, 1, 48, 48) * 255
    before = torch.get_rng_state()
    with drawing_from(torch.Generator().manual_seed(1)), torch.no_grad():
        net.train()(faces)
    assert torch.equal(torch.get_rng_state(), before)
