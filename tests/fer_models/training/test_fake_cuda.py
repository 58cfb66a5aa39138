"""A step, its augmentation and a validation of every net with CUDA tensors that have no content: no mix of devices.

What no such tensor can show: backward passes, the fused optimizers' own kernels, and any number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fer_common.captured import Captured
from fer_data import AugmentConfig
from fer_data.augmentation.augment import _paths, _pool
from fer_data.augmentation.augment_config import DL_COURSE, DL_COURSE_AS_IT_RAN
from fer_data.augmentation.batches import train_batches
from fer_data.faces import Split
from fer_models import NET_CONFIGS, AlexNetConfig, CompactResNetConfig, ModelError, NetConfig, Precision, Recipe
from fer_models.configs.transfer_config import Transfer
from fer_models.nets.registry import build
from fer_models.training.evaluate import predict_logits
from fer_models.training.schedule import phases
from fer_models.training.state import TrainingState, move, new_state
from fer_models.training.team import ALONE, Team
from fer_models.training.trainer import Trainer
from tests.fer_models.training.fake_cuda import DEVICE, Copies, fake_cuda, no_backward, to_cuda
from tests.replayed import Replayed

pytestmark = pytest.mark.timeout(120)

BATCH = 8
EVERYTHING = AugmentConfig(flip=0.5, crop_pad=4, rotate_deg=12, shift=0.1, scale=0.1, blur=0.3, brightness=0.1,
                           contrast=0.1, noise=5, cutout=2, erase=0.4, mixup=0.3, cutmix=0.3)  # fmt: skip
ADAM = Recipe(optimizer="adamw", lr=1e-3, batch_size=BATCH, ema_decay=0.99, label_smoothing=0.1, clip_norm=1.0)
SHORT = CompactResNetConfig(blocks=(1, 1, 1, 1))


@pytest.fixture(autouse=True)
def forget_cached_tensors() -> Iterator[None]:
    """Augmentation keeps tensors for the next batch: no fake one may be left to a later test, nor a real one met."""
    for kept in (_paths, _pool):
        kept.cache_clear()
    yield
    for kept in (_paths, _pool):
        kept.cache_clear()


def split() -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4 * BATCH, 48, 48), dtype=np.uint8)
    return Split(name="train", images=images, labels=np.arange(4 * BATCH, dtype=np.uint8) % 7)


def on_fake_gpu(config: NetConfig, recipe: Recipe) -> TrainingState:
    """The net is built with real tensors, since it draws its start, and then moved."""
    net = build(
        config, classes=7, mean_image=np.full((48, 48), 128, np.float32), generator=torch.Generator().manual_seed(0)
    )
    with fake_cuda():
        to_cuda(net)
        return new_state(net, recipe)


def trained(
    state: TrainingState,
    recipe: Recipe,
    augment: AugmentConfig,
    micro_batches: int = 1,
    precision: Precision = "bf16",
    team: Team = ALONE,
) -> tuple[Copies, Copies]:
    """Train an epoch's steps; what blocked per load of a batch, and in a step, of the last one."""
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    trainer = Trainer(
        state, phases(recipe, Transfer(), 1)[0], (), 4, DEVICE, precision, None, micro_batches, scaler, team
    )
    state.net.train()
    batches = train_batches(split(), BATCH, augment, torch.Generator().manual_seed(1), DEVICE, classes=7)
    load = step = Copies()
    for iteration in (0, 3):  # the optimizer's first step is another, and the average is updated at every fourth
        load, step = Copies(), Copies()
        with load:
            x, labels = next(batches)
        assert {x.device.type, labels.device.type} == {"cuda"}
        with step, no_backward(state.net):
            loss, right = trainer._step(x, labels, 1e-3, iteration)
        assert {loss.device.type, right.device.type} == {"cuda"}
    return load, step


@pytest.mark.parametrize("name", NET_CONFIGS)
def test_every_net_trains_and_validates_on_one_device(name: str) -> None:
    try:
        state = on_fake_gpu(NET_CONFIGS[name](), ADAM)
    except ModelError as error:
        pytest.skip(str(error))
    with fake_cuda():
        _, step = trained(state, ADAM, AugmentConfig(flip=0.5))
        assert step.blocking == {}, "nothing in a step waits for the GPU"
        logits = predict_logits(state.judged_net, split().images, device=DEVICE, precision="bf16", views="mirror")
    assert (logits.device.type, logits.dtype, tuple(logits.shape)) == ("cuda", torch.float32, (4 * BATCH, 7))


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(),
        AugmentConfig(flip=0.5),
        DL_COURSE,
        DL_COURSE_AS_IT_RAN,
        EVERYTHING,
        EVERYTHING.model_copy(update={"plain_and_augmented": True}),
    ],
)
def test_no_batch_but_the_first_waits_for_the_gpu(augment: AugmentConfig) -> None:
    """The first one brings the faces, and what is drawn for the epoch."""
    batches = train_batches(split(), BATCH, augment, torch.Generator().manual_seed(1), DEVICE, classes=7)
    with fake_cuda():
        with Copies() as first:
            next(batches)
        assert 0 < first.blocking.total() <= 6, "faces, whole numbers, fractions, and three tables of augmentation"
        with Copies() as others:
            assert {x.device.type for batch in batches for x in batch} == {"cuda"}
    assert others.blocking == {}


def test_faces_are_brought_to_the_gpu_once() -> None:
    faces = split()
    with fake_cuda():
        for expected in (3, 2):  # whole numbers and fractions are drawn for each epoch
            batches = train_batches(faces, BATCH, AugmentConfig(), torch.Generator().manual_seed(1), DEVICE)
            with Copies() as epoch:
                list(batches)
            assert epoch.blocking.total() == expected


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_every_optimizer_and_half_batches(optimizer: str, micro_batches: int) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "ema_decay": 0.99}
    recipe = Recipe(lr=1e-3, batch_size=BATCH, **options)
    state = on_fake_gpu(SHORT, recipe)
    with fake_cuda():
        _, step = trained(state, recipe, EVERYTHING, micro_batches)
    assert step.blocking == {}


@pytest.mark.parametrize("net", [SHORT.model_copy(update={"dropout": 0.2}), AlexNetConfig(norm="batch")])
def test_a_step_of_one_of_several_gpus(net: NetConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: sent.append(tensor.device.type))
    state, team = on_fake_gpu(net, ADAM), Team(rank=1, size=3)
    team.prepare(state.net)
    with fake_cuda():
        _, step = trained(state, ADAM, EVERYTHING, team=team)
    assert step.blocking == {}
    norms = sum(isinstance(module, _BatchNorm) for module in state.net.modules())
    assert sent == ["cuda"] * 2 * (norms + 1), "two steps: once per norm on the way forward, once for all gradients"


@pytest.mark.parametrize("augment", [AugmentConfig(flip=0.5), EVERYTHING])
def test_no_step_of_a_graph_waits_for_the_gpu(augment: AugmentConfig) -> None:
    """What is recorded, and the copies into a graph's memory and out of it."""
    state = on_fake_gpu(SHORT, ADAM)
    phase = phases(ADAM, Transfer(), 1)[0]
    trainer = Trainer(state, phase, (), 4, DEVICE, "bf16", None, graph=Replayed)
    captured, faces, replays = Captured(Replayed, shapes=2), split(), Replayed.replays
    with fake_cuda():
        state.net.train()
        for epoch in range(4):
            batches = train_batches(
                faces, BATCH, augment, torch.Generator().manual_seed(epoch), DEVICE, classes=7, captured=captured
            )
            for number in range(4):
                with Copies() as load:
                    x, labels = next(batches)
                with Copies() as step, no_backward(state.net):
                    trainer._step(x, labels, 1e-3, 4 * epoch + number)
                assert step.blocking == {}
                assert number == 0 or load.blocking == {}, "the first one brings what is drawn for the epoch"
    assert Replayed.replays - replays > 12, "most steps, and most batches"


def test_no_step_in_fp16_waits_for_the_gpu() -> None:
    state = on_fake_gpu(SHORT, ADAM)
    with fake_cuda():
        _, step = trained(state, ADAM, AugmentConfig(flip=0.5), precision="fp16")
    assert step.blocking == {}


def test_fp32_on_a_gpu_is_not_rounded_to_tf32() -> None:
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        move(torch.nn.Identity(), torch.device("cpu"), "contiguous")
        assert torch.backends.cudnn.allow_tf32, "cores have no TF32, and this process may use a GPU otherwise"
        move(torch.nn.Identity(), torch.device(DEVICE), "contiguous")
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
