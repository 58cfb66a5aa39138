"""The costs of using a net: its number of parameters, and its latency for one face."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sweeps.trial.messages import EpochReport, Task
from tracking.record.events import PARAMETERS
from tracking.record.objectives import LATENCY, METRICS

if TYPE_CHECKING:
    from torch import nn

    from fer_data import Faces

_WARM_UP, _TIMED = 5, 30


def costs(task: Task, net: nn.Module, faces: Faces, reports: Iterable[EpochReport]) -> dict[str, float]:
    """The costs that the task needs, as metrics of each epoch. A cost that was already reported keeps its value."""
    asked = {METRICS[name] for name in task.objectives} & {PARAMETERS, LATENCY}
    found = {name: report.metrics[name] for report in reports for name in asked if name in report.metrics}
    if PARAMETERS in asked - found.keys():
        found[PARAMETERS] = float(sum(one.numel() for one in net.parameters()))
    if LATENCY in asked - found.keys():
        found[LATENCY] = latency_milliseconds(net, faces)
    return found


def latency_milliseconds(net: nn.Module, faces: Faces) -> float:
    """Least processor time of a forward pass of one face in float32 on one core, after warm-up passes.

    Other trials of the machine lengthen some passes, and wall time even more.
    """
    import torch

    from fer_models.training.evaluate import predict

    net, face = copy.deepcopy(net), faces.val.images[:1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(_WARM_UP + _TIMED):
            begun = time.thread_time()
            predict(net, face)
            times.append(time.thread_time() - begun)
    finally:
        torch.set_num_threads(threads)
    return 1000 * min(times[_WARM_UP:])
