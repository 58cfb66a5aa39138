"""Claims a sweep's share of the slots of the machine, or of the cluster that it joins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cluster.connect import joined_ray, prepare_environment
from sweeps.planning.plan import Plan
from sweeps.sharing.files import ClaimStore, FileClaims, ledger_folder
from sweeps.sharing.share import SharedSlots, described, new_claim


@contextmanager
def share_of(plan: Plan, say: Callable[[str], None], warn: Callable[[str], None]) -> Iterator[SharedSlots | None]:
    """Hold the plan's share while the block runs; with `wait`, the block begins once a slot is free.

    None if nothing is left to run, or if the claims of other sweeps cannot be read.
    """
    address = plan.options.address
    if plan.is_finished():
        yield None
    elif address is None:
        with _sharing(FileClaims(ledger_folder()), plan, say, warn) as share:
            yield share
    else:
        prepare_environment(joining=True)
        from sweeps.sharing.ray_claims import RayClaims

        with joined_ray(address), _sharing(RayClaims(), plan, say, warn) as share:
            yield share


@contextmanager
def _sharing(
    store: ClaimStore, plan: Plan, say: Callable[[str], None], warn: Callable[[str], None]
) -> Iterator[SharedSlots | None]:
    spec, on_cluster = plan.spec, plan.options.address is not None
    claim = new_claim(spec.name, str(plan.options.out.absolute()), plan.slots, spec.priority, spec.weight,
                      on_cluster=on_cluster)  # fmt: skip
    try:
        share = SharedSlots(store, claim, plan.room, say=say)
    except OSError as error:
        warn(f"the slots of other sweeps on this machine cannot be read ({error}): this one uses every slot")
        yield None
        return
    try:
        if share.others:
            say(f"slots are shared with {'; '.join(map(described, share.others))}")
        if plan.options.wait:
            share.wait()
        yield share
    finally:
        with suppress(OSError):
            share.close()
