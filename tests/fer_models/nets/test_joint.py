"""Several nets joined into one."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fer_models import (
    AlexNetConfig,
    GoogLeNetConfig,
    JointConfig,
    LeNetConfig,
    ModelError,
    NetConfig,
    VGGSmallTunedConfig,
)
from fer_models.inspection.activations import watch
from fer_models.nets.joint import join
from fer_models.nets.registry import build, count_parameters
from fer_models.parts.staged import Staged

FACES = torch.rand(3, 1, 48, 48) * 255


def made(config: NetConfig) -> Any:
    mean = torch.full((48, 48), 100.0).numpy()
    return build(config, classes=7, mean_image=mean, generator=torch.Generator().manual_seed(3)).eval()


@torch.inference_mode()
def test_joined_at_the_output_it_answers_the_mean_of_the_logits() -> None:
    members = [made(LeNetConfig()), made(AlexNetConfig(norm="batch"))]
    expected = torch.stack([member(FACES) for member in members]).mean(0)
    sizes = sum(count_parameters(member) for member in members)
    net = join(members, "output", 7, torch.Generator()).eval()
    torch.testing.assert_close(net(FACES), expected)
    assert count_parameters(net) == sizes
    assert isinstance(net, Staged)
    torch.testing.assert_close(net.head(net.features(FACES)), expected)


@torch.inference_mode()
def test_joined_in_the_middle_it_has_the_first_halves_alone() -> None:
    members = [made(LeNetConfig()), made(VGGSmallTunedConfig())]
    first = members[0].stages()[0][1]
    sizes = sum(count_parameters(member) for member in members)
    net = join(members, "middle", 7, torch.Generator()).eval()
    assert net(FACES).shape == (3, 7)
    assert set(first) <= set(net.modules())
    assert count_parameters(net) < sizes


@pytest.mark.parametrize("at", ["output", "middle"])
def test_stages_hold_all_that_is_learned_by_depth_and_have_maps_to_show(at: Any) -> None:
    net = made(JointConfig(members=(GoogLeNetConfig(size=64), LeNetConfig()), at=at))
    held = [parameter for _, modules in net.stages() for module in modules for parameter in module.parameters()]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in net.parameters()}
    assert len(held) == len({id(parameter) for parameter in held})
    assert [name for name, _ in net.stages()][-1] == "head"
    assert watch(net), "inspect and Grad-CAM have a map to draw"


def test_each_form_learns_in_all_its_parts() -> None:
    for at in ("output", "middle"):
        net = made(JointConfig(members=(LeNetConfig(), VGGSmallTunedConfig()), at=at)).train()  # type: ignore[arg-type]
        net(FACES).square().sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_constraints_of_a_member_hold() -> None:
    net = made(JointConfig(members=(LeNetConfig(), VGGSmallTunedConfig())))
    tuned = [parameter for parameter in net.parameters() if parameter.ndim == 4]
    for parameter in tuned:
        parameter.data.fill_(9.0)
        parameter.grad = torch.zeros_like(parameter)
    net.after_step()
    assert min(float(parameter.flatten(1).norm(dim=1).max()) for parameter in tuned) == pytest.approx(4.0, rel=1e-3)


def test_what_cannot_be_joined() -> None:
    with pytest.raises(ModelError, match="AlexNet cannot be joined at its middle"):
        made(JointConfig(members=(AlexNetConfig(), LeNetConfig()), at="middle"))
    with pytest.raises(ValidationError, match="at least 2 items"):
        JointConfig(members=(LeNetConfig(),))
