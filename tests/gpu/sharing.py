"""Throughput of several training processes on one GPU, with and without NVIDIA's Multi-Process Service (MPS).

python -m tests.gpu.sharing FACES --device D --place K --windows N,N,... --window-seconds S   one process

A process prints `ready` after its first steps, and reads from its input when to begin.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.gpu.mps import CONTROL, mps
from tests.gpu.report import Row

_PATIENCE_SECONDS = 60.0


def throughput(faces_folder: Path, device: str, counts: tuple[int, ...], seconds: float) -> Iterator[Row]:
    """Images/s of 1, 2, 4 ... processes that train the compact net at once."""
    yield _measured("without MPS", faces_folder, device, counts, seconds, os.environ)
    if not device.startswith("cuda"):
        return
    with mps() as environment:
        if environment is None:
            yield Row("processes on one card, with MPS", None, f"{CONTROL} is not installed, or may not start here")
            return
        yield _measured("with MPS", faces_folder, device, counts, seconds, environment)


def _measured(
    how: str, faces_folder: Path, device: str, counts: tuple[int, ...], seconds: float, environment: Mapping[str, str]
) -> Row:
    command = [
        sys.executable, "-m", "tests.gpu.sharing", str(faces_folder), "--device", device,
        "--windows", ",".join(map(str, counts)), "--window-seconds", str(seconds),
    ]  # fmt: skip
    workers = [
        subprocess.Popen(
            [*command, "--place", str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )
        for place in range(max(counts))
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    begin, patience = time.time() + 0.5, (seconds + 1) * len(counts) + _PATIENCE_SECONDS
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{begin}\n")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=patience)[0] for worker in workers]
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    rates = {str(count): sum(worker["rates"].get(str(count), 0.0) for worker in found) for count in counts}
    text = ", ".join(f"{count}: {rate:,.0f}" for count, rate in rates.items()) + " images/s in all"
    text += f"; {found[0]['memory_mib']:.0f} MiB of the card per process" if found[0]["memory_mib"] else ""
    return Row(f"processes on one card, {how}", None, text, {"rates": rates, "workers": found})


def _worker() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("faces", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--place", type=int, required=True)
    parser.add_argument("--windows", required=True)
    parser.add_argument("--window-seconds", type=float, required=True)
    given = parser.parse_args()
    import torch

    from fer_data import open_cached
    from tests.gpu.cases import NETS, Training
    from tests.gpu.speed import wait

    torch.set_num_threads(1)
    training = Training(open_cached(given.faces), *NETS["compact_resnet"], given.device)
    for _ in range(5):
        training.step()
    wait(given.device)
    print("ready", flush=True)
    begin = float(input())
    rates = {}
    for index, count in enumerate(int(word) for word in given.windows.split(",")):
        start = begin + index * (given.window_seconds + 1)
        if given.place >= count:
            continue
        time.sleep(max(0.0, start - time.time()))
        steps, started, end = 0, time.time(), start + given.window_seconds
        while time.time() < end:
            for _ in range(5):
                training.step()
            wait(given.device)
            steps += 5
        rates[str(count)] = 128 * steps / (time.time() - started) if steps else 0.0
    print(json.dumps({"rates": rates, "memory_mib": _memory_mib(given.device)}))


def _memory_mib(device: str) -> float:
    """What this process holds of the card, its context included, by the driver's own count; 0 where unknown."""
    if not device.startswith("cuda"):
        return 0.0
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        mine = [one for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if one.pid == os.getpid()]
        return float(mine[0].usedGpuMemory) / 2**20 if mine else 0.0
    except Exception:  # a container may hide the processes of a card
        return 0.0


if __name__ == "__main__":
    _worker()
