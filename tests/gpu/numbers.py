"""Whether a GPU computes what the CPU computes, and the same twice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from fer_data import Faces
from fer_data.augmentation.augment import augment
from fer_models.training.evaluate import predict_logits
from fer_models.training.weights import load_state, save_state, take_snapshot
from tests.gpu.cases import AUGMENT, EVERY_SWITCH, Nets, Training
from tests.gpu.report import Row

_ENOUGH_STEPS = 50
"""The first steps are too noisy to judge a precision by."""


def same_as_cpu(faces: Faces, device: str, nets: Nets, steps: int) -> Iterator[Row]:
    """fp32 without TF32, no dropout: the losses of the first steps."""
    for name, (net, recipe) in nets.items():
        still = net.model_copy(update={"dropout": 0.0}) if hasattr(net, "dropout") else net
        cpu = Training(faces, still, recipe, "cpu", "fp32", "contiguous").losses(steps)
        gpu = Training(faces, still, recipe, device, "fp32", "channels_last").losses(steps)
        apart = ((cpu - gpu).abs() / cpu.abs()).tolist()
        ok = apart[0] < 1e-4 and apart[-1] < 5e-2
        text = f"relative difference of the loss, step 1 {apart[0]:.1e}, step {steps} {apart[-1]:.1e}"
        yield Row(f"fp32 {name}: cpu against {device}", ok, text, {"first": apart[0], "last": apart[-1]})


def same_augmentation(faces: Faces, device: str) -> Iterator[Row]:
    """The same draws of a CPU generator, varied on the CPU and on the device."""
    images = torch.tensor(faces.train.images[:256])
    for name, config in (("affine and erase", AUGMENT), ("every switch", EVERY_SWITCH)):
        cpu = augment(images, config, torch.Generator().manual_seed(3))
        gpu = augment(images.to(device), config, torch.Generator().manual_seed(3)).cpu()
        apart = (cpu - gpu).abs()
        most = float(apart.flatten().kthvalue(int(apart.numel() * 0.999)).values)
        text = f"grey levels apart: mean {float(apart.mean()):.1e}, 99.9 % below {most:.2f}"
        yield Row(f"augmentation, {name}: cpu against {device}", most < 0.5, text, {"p999": most})


def bf16_learns_like_fp32(faces: Faces, device: str, nets: Nets, steps: int) -> Iterator[Row]:
    tail = max(1, steps // 5)
    for name, (net, recipe) in nets.items():
        wide = Training(faces, net, recipe, device, "fp32").losses(steps)[-tail:].mean().item()
        narrow = Training(faces, net, recipe, device, "bf16").losses(steps)[-tail:].mean().item()
        text = f"mean loss of the last {tail} of {steps} steps {narrow:.4f}, fp32 {wide:.4f}"
        ok = abs(wide - narrow) < 0.05 if steps >= _ENOUGH_STEPS else None
        yield Row(f"bf16 {name}", ok, text, {"bf16": narrow, "fp32": wide})


def checkpoint_moves(faces: Faces, device: str, nets: Nets) -> Iterator[Row]:
    """A state saved on the device is loaded on the CPU and answers alike."""
    net, recipe = nets["compact_resnet"]
    there, here = Training(faces, net, recipe, device), Training(faces, net, recipe, "cpu", "fp32", "contiguous")
    there.losses(4)
    there.state.epoch = 1
    with tempfile.TemporaryDirectory() as folder:
        save_state(take_snapshot(there.state), Path(folder) / "last.safetensors", {})
        load_state(here.state, Path(folder) / "last.safetensors")
    images = faces.val.images[:512]
    theirs, ours = (
        predict_logits(one.state.judged_net, images, device=one.device, precision="fp32", views="mirror").cpu()
        for one in (there, here)
    )
    apart = float((theirs - ours).abs().max())
    yield Row(f"checkpoint of {device} read on cpu", apart < 1e-2, f"logits apart {apart:.1e}", {"apart": apart})


def same_twice(faces: Faces, device: str, nets: Nets, steps: int) -> Iterator[Row]:
    """Whether one seed gives the same bits twice, and what cudnn.deterministic costs."""
    net, recipe = nets["compact_resnet"]
    before = torch.backends.cudnn.deterministic
    for deterministic in (False, True):
        torch.backends.cudnn.deterministic = deterministic
        first, second = (Training(faces, net, recipe, device).losses(steps) for _ in range(2))
        equal = bool((first == second).all())
        text = f"bits equal: {equal}, largest difference of {steps} losses {float((first - second).abs().max()):.1e}"
        # Without the switch equal bits are luck; with it they are promised.
        ok = equal if deterministic else None
        yield Row(f"same seed twice, cudnn.deterministic={deterministic}", ok, text, {"equal": equal})
    torch.backends.cudnn.deterministic = before
