"""Measures configurations on a GPU of this machine: memory of one trial, images/s of several at once.

Each trial is a separate process, as in a sweep. `python -m sweeps.planning.gpu_measure` is such a process: it reads
commands as lines of JSON and answers each with a line. {"config", "faces", "device"} builds a net, trains a few steps
and validates. {"until"} continues to train until that time and answers with its counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fer_common.own_modules import command, environment
from sweeps.config import TrialConfig
from sweeps.trial.gpu.memory import CONTEXT_BYTES, drop_caches

if TYPE_CHECKING:
    from fer_models.training.fit import Epoch

GAIN = 1.1
"""Factor by which a further trial on a GPU must increase the total images/s."""

_MOST_AT_ONCE = 11  # if k trials do not slow each other down, the next one adds 1/k
_STEPS = 8
_IMAGES_PER_VAL_FACE = 8  # about as in FER2013
_WINDOW_SECONDS = 1.5
_PATIENCE_SECONDS = 180.0


@dataclass(frozen=True)
class Measured:
    """Measurements of a net on an otherwise idle GPU. `rates[k]` is the images/s of k + 1 trials together."""

    peak_bytes: int = 0
    """For the largest shape: what torch reserved, plus the context of the process."""
    rates: tuple[float, ...] = ()
    fault: str | None = None
    """Why the net could not be measured."""

    @property
    def is_exhausted(self) -> bool:
        """Whether a further trial at once would add too little throughput."""
        return len(self.rates) >= _MOST_AT_ONCE or (len(self.rates) > 1 and self.rates[-1] < GAIN * self.rates[-2])

    @property
    def worthwhile(self) -> int:
        """The number of trials at once up to which each one increases the throughput enough."""
        count = 1
        while count < len(self.rates) and self.rates[count] >= GAIN * self.rates[count - 1]:
            count += 1
        return count


def fitting(peak_bytes: int, free_bytes: int) -> int:
    """How many trials of `peak_bytes` fit into nine tenths of the free memory; at least one."""
    return max(1, int(0.9 * free_bytes / peak_bytes)) if peak_bytes > 0 else _MOST_AT_ONCE


def measure(
    nets: Mapping[str, Sequence[TrialConfig]], *, faces: str, device: str, free_bytes: int, most: int
) -> dict[str, Measured]:
    """Measure each net's configurations, with at most `most` trials at once (one per core)."""
    with ExitStack() as stack:
        processes: list[_Process] = []

        def first(count: int) -> list[_Process]:
            while len(processes) < count:
                processes.append(stack.enter_context(_Process(faces, device)))
            return processes[:count]

        return {net: _measure_net(configs, first, free_bytes, most) for net, configs in nets.items()}


def _measure_net(configs: Sequence[TrialConfig], first: Any, free_bytes: int, most: int) -> Measured:
    (alone,) = first(1)
    peaks: list[tuple[int, TrialConfig]] = []
    fault = None
    for config in configs:
        try:
            peaks.append((alone.prepare(config), config))
        except MeasureError as error:  # for example one that diverges: the others decide
            fault = str(error)
    if not peaks:
        return Measured(fault=fault)
    peak, largest = max(peaks, key=lambda found: found[0])
    rates: list[float] = []
    limit = min(fitting(peak, free_bytes), most, _MOST_AT_ONCE)
    try:
        while len(rates) < limit and not Measured(peak, tuple(rates)).is_exhausted:
            rates.append(_images_per_second(first(len(rates) + 1), largest))
    except MeasureError as error:  # another one does not fit after all
        fault = str(error)
    return Measured(peak, tuple(rates), fault)


def _images_per_second(processes: Sequence[_Process], config: TrialConfig) -> float:
    for process in processes:
        process.prepare(config)
    until = time.time() + _WINDOW_SECONDS
    for process in processes:
        process.order({"until": until})
    answers = [process.answer() for process in processes]
    return sum(float(answer["images"]) / float(answer["seconds"]) for answer in answers)


class MeasureError(Exception):
    """A measuring process failed; the message is its error."""


class _Process:
    """A trial that is measured, in a separate process."""

    def __init__(self, faces: str, device: str) -> None:
        self._faces, self._device = faces, device
        self._prepared: TrialConfig | None = None
        self._peak_bytes = 0

    def __enter__(self) -> _Process:
        self._child = subprocess.Popen(
            command("sweeps.planning.gpu_measure"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def prepare(self, config: TrialConfig) -> int:
        """Prepare it to train `config`; returns the peak of GPU memory, in bytes."""
        if config != self._prepared:
            self._prepared = None
            self.order({"config": config.model_dump(mode="json"), "faces": self._faces, "device": self._device})
            self._peak_bytes = int(self.answer()["peak_bytes"])
            self._prepared = config
        return self._peak_bytes

    def order(self, what: dict[str, Any]) -> None:
        """Send a command; its `answer` must be read next."""
        stdin: IO[str] | None = self._child.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(what) + "\n")
            stdin.flush()
        except OSError:
            raise MeasureError("the measuring process has died") from None

    def answer(self) -> dict[str, Any]:
        """The answer to the last command."""
        stdout: IO[str] | None = self._child.stdout
        assert stdout is not None
        watch = threading.Timer(_PATIENCE_SECONDS, self._child.kill)
        watch.start()
        line = stdout.readline()
        watch.cancel()
        if not line:
            raise MeasureError("the measuring process has died")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MeasureError(str(answer["error"]))
        return answer


class _Trial:
    """A net in training, in the measuring process."""

    def __init__(self, config: TrialConfig, faces: str, device: str) -> None:
        from fer_data import open_cached
        from fer_data.cache.preprocess_cache import preprocessed
        from fer_models.training.evaluate import EVALUATION_BATCH
        from fer_models.training.state import new_state
        from sweeps.trial.build_net import new_net

        self._config, self._device = config, device
        self._faces = open_cached(preprocessed(Path(faces), config.preprocess))
        self._state = new_state(new_net(config, self._faces), config.recipe, config.transfer)
        next(self._epochs(2, EVALUATION_BATCH))
        steps = min(_STEPS, len(self._faces.train) // config.recipe.batch_size)
        self._images = steps * config.recipe.batch_size
        self._steady = self._epochs(steps, -(-self._images // _IMAGES_PER_VAL_FACE))
        next(self._steady)

    def _epochs(self, steps: int, val_faces: int) -> Iterator[Epoch]:
        """Endless epochs of `steps` steps, each with a validation of `val_faces` faces."""
        from fer_data.augmentation.batches import train_batches
        from fer_models.training.fit import fit
        from sweeps.trial.build_net import fit_arguments

        faces, recipe = self._faces, self._config.recipe
        return fit(
            self._state,
            lambda generator: islice(
                train_batches(
                    faces.train, recipe.batch_size, self._config.augment, generator, self._device,
                    classes=len(faces.classes),
                ),
                steps,
            ),
            (faces.val.images[:val_faces], faces.val.labels[:val_faces]),
            epochs=1_000_000,
            seed=0,
            iterations_per_epoch=steps,
            device=self._device,
            **fit_arguments(self._config, faces),
        )  # fmt: skip

    def run(self, until: float) -> dict[str, float]:
        """Train until a time; returns the number of images and the seconds."""
        started, images = time.time(), 0
        while images == 0 or time.time() < until:
            next(self._steady)
            images += self._images
        return {"images": images, "seconds": time.time() - started}


def _peak_bytes(device: str) -> int:
    """The peak that torch reserved on its GPU, plus the other memory of the process; 0 on a CPU."""
    import torch

    return torch.cuda.max_memory_reserved() + CONTEXT_BYTES if device == "cuda" else 0


def _serve(orders: IO[str], answers: IO[str]) -> None:
    import torch

    from sweeps.trial.gpu.faults import is_out_of_memory

    torch.set_num_threads(1)
    trial: _Trial | None = None
    for line in orders:
        order = json.loads(line)
        answer: dict[str, Any]
        try:
            if "until" in order:
                answer = trial.run(order["until"]) if trial else {"error": "it has nothing to train"}
            else:
                trial = None
                drop_caches()
                if order["device"] == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                trial = _Trial(TrialConfig.model_validate(order["config"]), order["faces"], order["device"])
                answer = {"peak_bytes": _peak_bytes(order["device"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
            if is_out_of_memory(error) and trial is None and torch.cuda.is_available():
                answer = {"peak_bytes": torch.cuda.mem_get_info()[1]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    own_stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    _serve(sys.stdin, own_stdout)
