"""What stands where a sweep has something slow that a test or a benchmark is not about."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from fer_models import CompactResNetConfig
from sweeps.after.finish import NothingAtEnd
from tracking.tracker import NoTracker

QUIET: dict[str, Any] = {"tracker": NoTracker(), "at_end": NothingAtEnd()}
"""For `run_sweep` and `run_plan`: nothing is sent, drawn or published."""

SMALL_NET = CompactResNetConfig(size=32, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1))
"""Where any net will do: a LeNet has 2 million parameters, and most of a short trial is then the writing of its checkpoints."""


class NvmlError(Exception): ...


@dataclass
class Card:
    """A GPU of `FakeNvml`; `slices` of a GPU that is split (MIG)."""

    uuid: str
    capability: tuple[int, int] = (9, 0)
    name: str = "NVIDIA Test"
    total_bytes: int = 80 << 30
    free_bytes: int = 70 << 30
    slices: tuple[Card, ...] = ()


class FakeNvml:
    """Stands where `pynvml` stands, on a machine with these GPUs; without any, as where there is no driver."""

    NVMLError = NvmlError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, *cards: Card, driver: str = "580.65", cuda: int = 13000) -> None:
        self.cards, self.version, self.cuda = cards, driver, cuda

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.cards:
            raise NvmlError("LibraryNotFound")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def unsplit(card: Card) -> tuple[int, int]:
            if not card.slices:
                raise NvmlError("NotSupported")
            return (1, 1)

        def slice_of(card: Card, index: int) -> Card:
            if index >= len(card.slices):
                raise NvmlError("NotFound")
            return card.slices[index]

        return {
            "Shutdown": lambda: None,
            "SystemGetDriverVersion": lambda: self.version,
            "SystemGetCudaDriverVersion_v2": lambda: self.cuda,
            "DeviceGetCount": lambda: len(self.cards),
            "DeviceGetHandleByIndex": lambda index: self.cards[index],
            "DeviceGetUUID": lambda card: card.uuid,
            "DeviceGetName": lambda card: card.name,
            "DeviceGetMemoryInfo": lambda card: SimpleNamespace(total=card.total_bytes, free=card.free_bytes),
            "DeviceGetCudaComputeCapability": lambda card: card.capability,
            "DeviceGetMigMode": unsplit,
            "DeviceGetMaxMigDeviceCount": lambda card: 7,
            "DeviceGetMigDeviceHandleByIndex": slice_of,
            "DeviceIsMigDeviceHandle": lambda card: card.uuid.startswith("MIG-"),
            "DeviceGetDeviceHandleFromMigDeviceHandle": lambda part: next(c for c in self.cards if part in c.slices),
        }[name.removeprefix("nvml")]
