"""The GPUs of this machine as NVIDIA's driver lists them (NVML): without torch, and in containers without /proc."""

from __future__ import annotations

import importlib.util
import os
import runpy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a slice of one (MIG). The bytes are those of its memory."""

    name: str
    uuid: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, and the newest CUDA version that it supports."""

    version: str
    cuda: tuple[int, int]


@dataclass(frozen=True)
class GpuFacts:
    """The GPUs of a machine. `fault` is the reason why the machine's torch cannot use them."""

    gpus: tuple[Gpu, ...] = ()
    driver: Driver | None = None
    fault: str | None = None


def own_gpus() -> GpuFacts:
    """The GPUs that CUDA shows to this process, by CUDA_VISIBLE_DEVICES.

    Numbers, UUIDs or their beginnings, and MIG slices are recognised. As in CUDA, everything after an unknown name is
    ignored. Without names, only one slice is visible if GPUs are split.
    """
    return _facts(os.environ.get("CUDA_VISIBLE_DEVICES"))


def all_gpus() -> GpuFacts:
    """The GPUs of this machine, regardless of CUDA_VISIBLE_DEVICES of this process, which Ray sets in a worker."""
    return _facts(None)


def torch_cuda() -> str | None:
    """The CUDA version of the installed torch, without importing it. None for a CPU build, or without torch."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    cuda = runpy.run_path(str(Path(found.origin).with_name("version.py"))).get("cuda")
    return None if cuda is None else str(cuda)


def torch_fault(here: Driver, built_for: str | None) -> str | None:
    """Why a torch with this CUDA version cannot use this driver's GPUs. None if it can."""
    if built_for is None:
        return "the installed torch is a build for CPUs alone; install one that is built for CUDA"
    if here.cuda[0] < int(built_for.partition(".")[0]):
        return (
            f"driver {here.version} runs CUDA {here.cuda[0]}.{here.cuda[1]} at most, the installed torch is built for "
            f"CUDA {built_for}; install a newer driver{_LEAST_DRIVERS.get(built_for.partition('.')[0], '')}, or a "
            f"torch that is built for CUDA {here.cuda[0]}"
        )
    return None


_LEAST_DRIVERS = {"12": " (525 or newer)", "13": " (580 or newer)"}
"""CUDA's major version -> the oldest driver that supports it."""


def _facts(visible: str | None) -> GpuFacts:
    with _nvml() as nvml:
        if nvml is None:
            return GpuFacts()
        newest = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
        here = Driver(_text(nvml.nvmlSystemGetDriverVersion()), (newest // 1000, newest % 1000 // 10))
        gpus = _listed(nvml, visible)
    return GpuFacts(gpus, here, torch_fault(here, torch_cuda()) if gpus else None)


def _listed(nvml: Any, visible: str | None) -> tuple[Gpu, ...]:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    slices = [part for handle in handles for part in _slices(nvml, handle)]
    if visible is None:
        chosen = slices[:1] or handles
    else:
        names = [name.strip() for name in visible.split(",")]
        chosen = list(_chosen(nvml, names, handles, slices))
    found = tuple(_gpu(nvml, handle) for handle in chosen)
    return found if len({gpu.uuid for gpu in found}) == len(found) else ()  # CUDA shows none if one is named twice


def _chosen(nvml: Any, names: Sequence[str], gpus: Sequence[Any], slices: Sequence[Any]) -> Iterator[Any]:
    by_uuid = {_text(nvml.nvmlDeviceGetUUID(handle)): handle for handle in (*gpus, *slices)}
    for name in names:
        if name.isdigit() and int(name) < len(gpus):
            handle = gpus[int(name)]
            yield next(iter(_slices(nvml, handle)), handle)
            continue
        meant = [handle for uuid, handle in by_uuid.items() if name and uuid.startswith(name)]
        if len(meant) != 1:
            return
        yield meant[0]


def _slices(nvml: Any, handle: Any) -> list[Any]:
    """The MIG slices of a GPU that is split."""
    try:
        if nvml.nvmlDeviceGetMigMode(handle)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
    except nvml.NVMLError:  # a GPU that cannot be split
        return []
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except nvml.NVMLError:  # fewer slices than there might be
            continue
    return found


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    is_slice = nvml.nvmlDeviceIsMigDeviceHandle(handle)
    whole = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if is_slice else handle
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(whole)
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        capability=(int(major), int(minor)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@contextmanager
def _nvml() -> Iterator[Any]:
    """The library, or None if there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()
