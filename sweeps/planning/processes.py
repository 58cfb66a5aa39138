"""Decides in which processes the trials of a GPU run: lanes of one process, or several processes with MPS."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweeps.errors import InputError
from sweeps.node.mps import obstacle

if TYPE_CHECKING:
    from sweeps.options import Options
    from sweeps.planning.plan import Plan
    from sweeps.planning.resources import Device, Slots
    from sweeps.spec import SweepSpec

_MOST_LANES = 4
"""Maximum for `auto`: on an H200 eight streams gave only a sixth more, and a GPU error ends all trials of a process."""


def with_share_of_lanes(options: Options, device: Device) -> Options:
    """The options with a share such that the requested lanes fill a GPU, unless another share is requested."""
    if options.lanes == "auto" or options.lanes == 1 or device == "cpu" or options.gpus_per_trial not in ("auto", None):
        return options
    return options.model_copy(update={"gpus_per_trial": 1 / options.lanes})


def check_lanes(spec: SweepSpec, slots: Slots) -> None:
    """Refuse more lanes than trials that may share a process."""
    if spec.lanes == "auto" or spec.lanes == 1:
        return
    if spec.runner == "inline":
        raise InputError(
            f"--lanes {spec.lanes}: --runner inline trains one trial at a time; use --lanes 1, or --runner ray"
        )
    if slots.workers > 1:
        raise InputError(
            f"--lanes {spec.lanes}: here each trial is trained by {slots.workers} workers, in processes of its own; "
            "use --lanes 1"
        )
    if spec.device == "cuda" and _per_gpu(slots) < spec.lanes:
        raise InputError(
            f"--lanes {spec.lanes}: --gpus-per-trial {slots.gpus_per_trial:g} lets {_per_gpu(slots)} at once on a GPU; "
            f"use --gpus-per-trial {1 / spec.lanes:g}"
        )


def with_processes(plan: Plan, mps_fault: str | None = None) -> Plan:
    """Decide how many trials a process takes, and whether MPS runs between the processes of a GPU.

    `mps_fault` is why it did not run while the shares were measured.
    """
    asked, on_gpus, per_gpu = plan.spec.lanes, plan.spec.device == "cuda", _per_gpu(plan.slots)
    lanes = (min(per_gpu, _MOST_LANES) if on_gpus else 1) if asked == "auto" else asked
    slots, notes = replace(plan.slots, lanes=lanes), list(plan.sizing)
    if on_gpus and per_gpu > lanes:
        why_not = mps_fault or obstacle()
        if plan.options.address is not None:
            slots = replace(slots, mps=True)
            notes.append("each node that has MPS runs it during this sweep")
        elif why_not:
            notes.append(f"MPS is not started: {why_not}")
        else:
            slots = replace(slots, mps=True)
            notes.append("MPS runs during this sweep")
    return replace(plan, slots=slots, sizing=tuple(notes))


def _per_gpu(slots: Slots) -> int:
    """How many trials one GPU has at once."""
    return max(1, int(1 / slots.gpus_per_trial + 1e-9)) if slots.gpus_per_trial else 1
