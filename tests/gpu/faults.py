"""What a trial does when its GPU fails: out of memory, a device assert, a killed worker. Each in a process of its own.

python -m tests.gpu.faults KIND FACES DEVICE     one of them; prints JSON
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.gpu.report import Row

_TINY_FRACTION = 0.02


def faults(faces_folder: Path, device: str) -> Iterator[Row]:
    """The faults that a card can be brought to; what is found is printed, not judged, but a resume must resume."""
    kinds = ("out_of_memory", "device_assert") if device.startswith("cuda") else ()
    for kind in kinds:
        found = _in_a_process(kind, faces_folder, device)
        yield Row(kind.replace("_", " "), None, "; ".join(f"{key}: {value}" for key, value in found.items()), found)
    yield from _killed(faces_folder, device)


def _command(kind: str, faces_folder: Path, device: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "tests.gpu.faults", kind, str(faces_folder), device, *more]


def _in_a_process(kind: str, faces_folder: Path, device: str) -> dict[str, Any]:
    done = subprocess.run(_command(kind, faces_folder, device), capture_output=True, text=True, timeout=90)
    if done.returncode or not done.stdout.strip():
        return {"exit code": done.returncode, "last words": (done.stderr or done.stdout).strip()[-300:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _killed(faces_folder: Path, device: str) -> Iterator[Row]:
    """kill -9 in the second epoch: the next attempt continues after the first, and the card's memory is free again."""
    with tempfile.TemporaryDirectory() as folder:
        command = _command("train", faces_folder, device, folder)
        first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert first.stdout is not None
        first.stdout.readline()  # the first epoch is reported
        time.sleep(0.2)
        before = _used_mib(device)
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(1)
        after = _used_mib(device)
        second = subprocess.run(command, capture_output=True, text=True, timeout=120)
    epochs = [json.loads(line).get("epoch") for line in second.stdout.splitlines()]
    text = f"the second attempt reported epochs {epochs}; card in use before {before} MiB, after {after} MiB"
    ok = epochs[:1] == [1] and 3 in epochs
    yield Row("killed in epoch 2, resumed", ok, text, {"epochs": epochs, "before": before, "after": after})


def _used_mib(device: str) -> int:
    if not device.startswith("cuda"):
        return 0
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True).stdout.split()[0])


def _task(faces_folder: str, device: str, folder: str, *, batch_size: int, epochs: int, small: bool = False) -> Any:
    from fer_models import AlexNetConfig, LeNetConfig, Recipe
    from sweeps.config import TrialConfig
    from sweeps.trial.messages import Task

    config = TrialConfig(
        net=LeNetConfig() if small else AlexNetConfig(norm="batch"),
        recipe=Recipe(lr=0.01, batch_size=batch_size),
        precision="bf16" if device.startswith("cuda") else "fp32",  # a CPU without bf16 takes minutes per epoch
        memory_format="channels_last",
    )
    return Task(
        trial=0, attempt=1, folder=folder, config=config, seed=0, epochs=epochs, faces=faces_folder, device=device,
        figures=False,
    )  # fmt: skip


def _train(faces_folder: str, device: str, folder: str) -> None:
    from sweeps.trial.run_trial import run_trial

    for message in run_trial(_task(faces_folder, device, folder, batch_size=128, epochs=3, small=True)):
        print(message.model_dump_json(), flush=True)


def _outcome(work: Callable[[], Any]) -> str:
    try:
        return str(work())
    except BaseException as error:
        kinds = " < ".join(kind.__name__ for kind in type(error).__mro__[:-3])
        return f"{kinds}: {str(error).splitlines()[0][:160]}"


def _run(task: Any) -> str:
    from sweeps.trial.run_trial import run_trial

    last = list(run_trial(task))[-1]
    return f"{getattr(last, 'state', 'epoch')} {(getattr(last, 'reason', None) or '')[:200]}".strip()


def _out_of_memory(faces_folder: str, device: str) -> dict[str, str]:
    """A batch beyond a share of the card, then an ordinary trial in the same process."""
    import torch

    torch.cuda.set_per_process_memory_fraction(_TINY_FRACTION)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        return {
            "a batch of 16,384": _outcome(lambda: _run(_task(faces_folder, device, first, batch_size=16384, epochs=1))),
            "the next trial": _outcome(lambda: _run(_task(faces_folder, device, second, batch_size=128, epochs=1))),
        }


def _device_assert(faces_folder: str, device: str) -> dict[str, str]:
    """An index out of range on the card, then an ordinary trial in the same process."""
    import torch

    def beyond() -> str:
        table = torch.zeros(4, device=device)
        table[torch.tensor([99], device=device)].sum().item()
        return "no error"

    with tempfile.TemporaryDirectory() as folder:
        return {
            "an index out of range": _outcome(beyond),
            "a new tensor": _outcome(lambda: torch.zeros(1, device=device).item()),
            "empty_cache": _outcome(torch.cuda.empty_cache),
            "the next trial": _outcome(lambda: _run(_task(faces_folder, device, folder, batch_size=128, epochs=1))),
        }


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "train":
        _train(*rest)
    else:
        print(json.dumps({"out_of_memory": _out_of_memory, "device_assert": _device_assert}[kind](*rest)), flush=True)
        os._exit(0)  # a dead CUDA context may hang or fail the interpreter's own end
