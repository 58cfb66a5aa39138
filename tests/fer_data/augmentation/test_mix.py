import pytest
import torch
from torch import Tensor

from fer_data import AugmentConfig
from fer_data.augmentation.mix import draw_mixing, mix_drawn

N = 400


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mix(images: Tensor, labels: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return mix_drawn(images, labels, draw_mixing(len(images), config, generator))


def mixed(config: AugmentConfig, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """N images of one grey level each, their number, which is their class too; and what mixing makes of them."""
    labels = torch.eye(N)
    images = torch.arange(N).float().view(N, 1, 1, 1).expand(N, 1, 48, 48).contiguous()
    return images, labels, *mix(images, labels, config, generator(seed))


@pytest.mark.parametrize("config", [AugmentConfig(mixup=0.4), AugmentConfig(cutmix=1.0)])
def test_labels_are_the_shares_of_the_pixels(config):
    _, _, images, labels = mixed(config)
    assert torch.allclose(labels.sum(1), torch.ones(N))
    assert torch.allclose(images.mean((1, 2, 3)), labels @ torch.arange(N).float(), atol=0.05)


@pytest.mark.parametrize("config", [AugmentConfig(mixup=0.4), AugmentConfig(cutmix=1.0)])
def test_each_image_gives_itself_to_two_at_most(config):
    *_, labels = mixed(config)
    assert (labels > 0).sum(1).max() == 2
    assert torch.allclose(labels.sum(0).mean(), torch.tensor(1.0))
    assert (labels.argmax(1) != torch.arange(N)).any()  # the partner may have the larger share


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_shares_are_drawn_an_image_from_a_beta_distribution(alpha):
    *_, labels = mixed(AugmentConfig(mixup=alpha))
    share = labels.diagonal()
    assert share.mean() == pytest.approx(0.5, abs=0.1)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)  # of Beta(alpha, alpha)


def test_mixup_fades_whole_images():
    _, _, images, _ = mixed(AugmentConfig(mixup=1.0))
    assert (images.amax((1, 2, 3)) - images.amin((1, 2, 3))).max() < 1e-3


def test_cutmix_pastes_one_rectangle_in_its_place():
    before, _, images, labels = mixed(AugmentConfig(cutmix=1.0))
    pasted = (images != before)[:, 0]
    rows, columns = pasted.any(2).sum(1), pasted.any(1).sum(1)
    assert torch.equal(pasted.sum((1, 2)), rows * columns)  # what changed fills its bounding box
    assert torch.equal(images[pasted.unsqueeze(1)] % 1, torch.zeros(int(pasted.sum())))  # nothing is faded
    assert torch.allclose(1 - labels.diagonal(), pasted.float().mean((1, 2)), atol=1e-5)
    assert pasted.float().mean() == pytest.approx(0.5, abs=0.1)  # of Beta(1, 1)


def test_either_is_chosen_a_batch_where_both_are_on():
    config, fades = AugmentConfig(mixup=1.0, cutmix=1.0), 0
    for seed in range(100):
        images = torch.arange(8).float().view(8, 1, 1, 1).expand(8, 1, 6, 6)
        result, _ = mix(images, torch.eye(8), config, generator(seed))
        fades += bool((result % 1).any())
    assert 25 < fades < 75  # five standard deviations of Binomial(100, 1/2)


def test_the_generator_alone_decides():
    config = AugmentConfig(mixup=1.0, cutmix=1.0)
    assert torch.equal(mixed(config, 1)[2], mixed(config, 1)[2])
    assert not torch.equal(mixed(config, 1)[2], mixed(config, 2)[2])
