"""Images per second of a training step: as it is, captured in a CUDA graph, several at once; and what holds it up."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_data import AugmentConfig, Faces
from fer_data.augmentation.batches import batches_per_epoch, train_batches
from fer_models import CompactResNetConfig, NetConfig
from fer_models.nets.registry import build
from fer_models.parts.layers import Dropout
from fer_models.training.fit import fit
from fer_models.training.state import move, new_state
from tests.gpu.cases import NETS, Nets, Training, usual_precision
from tests.gpu.report import Row

Step = Callable[[], Any]


def on_gpu(device: str) -> bool:
    return device.startswith("cuda")


def wait(device: str) -> None:
    if on_gpu(device):
        torch.cuda.synchronize()


def seconds_per_step(step: Step, device: str, seconds: float) -> float:
    """Mean seconds of a step over at least `seconds`, after a warm-up."""
    warm_up, at_once = (5, 10) if on_gpu(device) else (1, 1)
    for _ in range(warm_up):
        step()
    wait(device)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(at_once):
            step()
        count += at_once
        wait(device)
    return (time.perf_counter() - started) / count


def as_it_is(faces: Faces, device: str, nets: Nets, seconds: float) -> Iterator[Row]:
    """`fit`'s own step on augmented batches; kernels, device time, blocking calls and memory on a GPU."""
    for name, (net, recipe) in nets.items():
        for batch in (128, 512) if name == "compact_resnet" and on_gpu(device) else (recipe.batch_size,):
            if on_gpu(device):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            training = Training(faces, net, recipe.model_copy(update={"batch_size": batch}), device)
            each = seconds_per_step(training.step, device, seconds)
            values = {"images_per_second": batch / each, "milliseconds": 1e3 * each}
            text = f"{batch / each:,.0f} images/s, {1e3 * each:.2f} ms per step"
            if on_gpu(device):
                values |= held_up(training.step, steps=8)
                text += (
                    f"; {values['kernels']:.0f} kernels and copies per step, {values['device_ms']:.2f} ms of device "
                    f"time, {values['blocking']:.1f} blocking calls, peak {values['peak_mib']:.0f} MiB reserved"
                )
            yield Row(f"step {name}, batch {batch}, eager", None, text, values)


def held_up(step: Step, steps: int) -> dict[str, float]:
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(steps):
            step()
    torch.cuda.set_sync_debug_mode("default")
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    on_device = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "kernels": len(on_device) / steps,
        "device_ms": sum(event.device_time_total for event in on_device) / steps / 1e3,
        "blocking": sum("synchroniz" in str(one.message) for one in seen) / steps,
        "peak_mib": torch.cuda.max_memory_reserved() / 2**20,
    }


def bare_step(faces: Faces, net: NetConfig, device: str, batch: int, seed: int = 0) -> Step:
    """Forward, backward and AdamW on a batch that is on the device, ready to be captured."""
    generator = torch.Generator().manual_seed(seed)
    model = build(net, classes=len(faces.classes), mean_image=faces.mean_image(), generator=generator).train()
    move(model, torch.device(device), "channels_last")
    return _adamw_step(model, device, torch.rand(batch, 1, 48, 48, device=device) * 255, batch)


def _adamw_step(
    model: nn.Module, device: str, x: Tensor, batch: int, answer: Callable[..., Tensor] | None = None
) -> Step:
    capturable: dict[str, Any] = {"capturable": True} if on_gpu(device) else {}
    rate = torch.tensor(1e-3, device=device) if on_gpu(device) else 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True, **capturable)
    labels = torch.randint(7, (batch,), device=device)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = (answer or model)(x)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss

    return step


def captured(step: Step) -> Step:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(kept_alive: Step = step) -> None:
        """Replay; the graph reads the tensors of `step` by address, so they must live as long as it does."""
        graph.replay()

    return replay


def limits(faces: Faces, device: str, batch_size: int, seconds: float) -> Iterator[Row]:
    """What graphs, larger batches, streams and grouped lanes could give: the net alone, without augmentation."""
    for name in ("compact_resnet", "lenet"):
        net = NETS[name][0]
        rates: dict[str, float] = {}
        for batch in (64, 128, 256, 512, 1024) if on_gpu(device) else (batch_size,):
            rates[f"eager {batch}"] = batch / seconds_per_step(bare_step(faces, net, device, batch), device, seconds)
            if on_gpu(device):
                step = captured(bare_step(faces, net, device, batch))
                rates[f"captured {batch}"] = batch / seconds_per_step(step, device, seconds)
        yield Row(f"{name}: net alone, by batch", None, _listed(rates), rates)
        lanes: dict[str, float] = {}
        for count in (1, 2, 4, 8, 16) if on_gpu(device) else (2,):
            if on_gpu(device):
                steps = [captured(bare_step(faces, net, device, batch_size, seed)) for seed in range(count)]
                lanes[f"{count} streams"] = batch_size * count / seconds_per_step(_on_streams(steps), device, seconds)
            grouped = grouped_step(faces, net, device, count, batch_size)
            if on_gpu(device):
                grouped = captured(grouped)
            lanes[f"{count} grouped"] = batch_size * count / seconds_per_step(grouped, device, seconds)
        yield Row(f"{name}: several trials in one process, batch {batch_size} each", None, _listed(lanes), lanes)


def _listed(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()) + " images/s"


def _on_streams(steps: list[Step]) -> Step:
    streams = [torch.cuda.Stream() for _ in steps]

    def all_of_them() -> None:
        for step, stream in zip(steps, streams, strict=True):
            with torch.cuda.stream(stream):
                step()

    return all_of_them


class _LaneLinear(nn.Module):
    """K linear layers as one batched product: [K, n, f] -> [K, n, o]."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.data for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.data for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


def _fused(modules: list[Any]) -> nn.Module:
    """K equal modules as one with K times the channels."""
    first, count = modules[0], len(modules)
    if isinstance(first, nn.Conv2d):
        wide = nn.Conv2d(
            first.in_channels * count, first.out_channels * count, first.kernel_size, first.stride, first.padding,
            groups=first.groups * count, bias=first.bias is not None,
        )  # fmt: skip
        wide.weight.data = torch.cat([module.weight.data for module in modules])
        if wide.bias is not None:
            wide.bias.data = torch.cat([module.bias.data for module in modules])
        return wide
    if isinstance(first, nn.BatchNorm2d):
        return nn.BatchNorm2d(first.num_features * count)
    if isinstance(first, nn.Linear):
        return _LaneLinear(modules)
    if isinstance(first, Dropout):
        return nn.Identity()
    children = dict(first.named_children())
    if not children:
        return first
    whole = copy.copy(first)
    whole._modules = {name: _fused([module._modules[name] for module in modules]) for name in children}
    return whole


def grouped_step(faces: Faces, net: NetConfig, device: str, count: int, batch: int) -> Step:
    """`count` equal nets as one program: grouped convolutions, batched products."""
    nets = [
        build(
            net, classes=len(faces.classes), mean_image=faces.mean_image(),
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in range(count)
    ]  # fmt: skip
    parts = {part: _fused([getattr(one, part) for one in nets]) for part in ("backbone", "neck", "head")}
    whole = nn.ModuleDict(parts).train()
    move(whole, torch.device(device), "channels_last")
    x = torch.randn(batch, count, 48, 48, device=device).contiguous(memory_format=torch.channels_last)

    def answer(x: Tensor) -> Tensor:
        maps = whole["backbone"](x)
        logits: Tensor = whole["head"](whole["neck"](maps.reshape(batch, count, -1).transpose(0, 1)))
        return logits.flatten(0, 1)

    return _adamw_step(whole, device, x, batch * count, answer)


def learns(faces: Faces, device: str, epochs: int, seeds: int) -> Iterator[Row]:
    """The nine-epoch run of the compact net that reaches 62.4 to 62.8 % of PublicTest on CPUs (docs/results.md)."""
    recipe = NETS["compact_resnet"][1].model_copy(update={"weight_decay": 0.02})
    augment, config = AugmentConfig(flip=0.5, shift=0.1), CompactResNetConfig(blocks=(1, 2, 1, 1))
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        net = build(config, classes=len(faces.classes), mean_image=faces.mean_image(), generator=generator)
        started = time.perf_counter()
        found = list(
            fit(
                new_state(net, recipe),
                lambda g: train_batches(faces.train, 128, augment, g, device, classes=len(faces.classes)),
                (faces.val.images, faces.val.labels),
                recipe=recipe,
                epochs=epochs,
                seed=seed,
                iterations_per_epoch=batches_per_epoch(faces.train, 128, augment),
                device=device,
                precision=usual_precision(config, device),
                memory_format="channels_last",
            )
        )
        best, took = max(epoch.val_accuracy for epoch in found), time.perf_counter() - started
        real = not faces.synthetic and epochs == 9
        text = f"val accuracy {best:.4f} in {took:.1f} s, {found[-1].images_per_second:,.0f} images/s"
        yield Row(f"compact_resnet, {epochs} epochs, seed {seed}", best > 0.61 if real else None, text,
                  {"val_accuracy": best, "seconds": took})  # fmt: skip
