"""Claims a sweep's share of the slots of the machine, or of the cluster that it joins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cluster.connect import joined_ray, prepare_environment, ray_runs_here
from sweeps.planning.plan import Plan
from sweeps.sharing.files import ClaimStore, FileClaims, ledger_folder
from sweeps.sharing.gpu_places import GpuPlaces
from sweeps.sharing.share import SharedSlots, described, new_claim, trials_per_slot


def gpu_places(plan: Plan) -> GpuPlaces | None:
    """The GPUs of this machine, of which the plan's trials take theirs; None if a Ray chooses them that was not
    started for this sweep.

    They have the driver's names, which are the same for every sweep. CUDA_VISIBLE_DEVICES takes them.
    """
    if plan.options.address is not None or (plan.spec.runner == "ray" and ray_runs_here()):
        return None
    known = [gpu.uuid for gpu in plan.hardware.facts.gpus]
    return GpuPlaces(known[: plan.slots.gpus] or map(str, range(plan.slots.gpus)))


@contextmanager
def share_of(
    plan: Plan, places: GpuPlaces | None, say: Callable[[str], None], warn: Callable[[str], None]
) -> Iterator[SharedSlots | None]:
    """Hold the plan's share while the block runs.

    `places` then has the plan's share of each GPU. None if nothing is left to run, or if the claims of other sweeps
    cannot be read.
    """
    address = plan.options.address
    if plan.is_finished():
        yield None
    elif address is None:
        with _sharing(FileClaims(ledger_folder()), plan, places, say, warn) as share:
            yield share
    else:
        prepare_environment(joining=True)
        from sweeps.sharing.ray_claims import RayClaims

        with joined_ray(address), _sharing(RayClaims(), plan, places, say, warn) as share:
            yield share


@contextmanager
def _sharing(
    store: ClaimStore,
    plan: Plan,
    places: GpuPlaces | None,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Iterator[SharedSlots | None]:
    spec, slots = plan.spec, plan.slots
    shares = spec.gpu_shares.values() if places else ()
    largest = max(shares, default=slots.gpus_per_trial)
    names = places.names if places else map(str, range(slots.gpus))
    claim = new_claim(spec.name, str(plan.options.out.absolute()), slots, spec.priority, spec.weight, gpus=names,
                      largest=largest, on_cluster=plan.options.address is not None)  # fmt: skip
    try:
        share = SharedSlots(
            store, claim, plan.room, say=say, places=places, trials_per_slot=trials_per_slot(slots, largest)
        )
    except OSError as error:
        warn(f"the slots of other sweeps on this machine cannot be read ({error}): this one uses every slot")
        yield None
        return
    try:
        if share.others:
            say(f"slots are shared with {'; '.join(map(described, share.others))}")
        yield share
    finally:
        with suppress(OSError):
            share.close()
