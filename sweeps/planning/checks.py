"""Checks of a plan before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_data import Faces
from fer_models.configs.precision import BF16_CAPABILITY
from sweeps.config import TrialConfig
from sweeps.errors import InputError
from sweeps.search.expected_gain import LEAST_TRIALS
from sweeps.space import Space
from sweeps.spec import SweepSpec

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan
    from sweeps.planning.resources import Hardware


def check_priors(space: Space, seed: int) -> None:
    """Check priors before settings are fixed: a fixed parameter is no longer drawn."""
    from sweeps.search import samplers
    from sweeps.search.proposals import random_trials

    samplers.check_priors(space, random_trials(seed))


def check_objectives(space: Space) -> None:
    """Refuse several objectives if the sampler or the pruner supports only one."""
    if len(space.objectives) == 1:
        return
    faults = []
    if space.sampler == "cmaes":
        faults.append("--sampler cmaes optimizes one objective; use nsgaii, tpe, qmc-tpe, gp, qmc, random or grid")
    if space.pruner == "median":
        faults.append("--pruner median compares one objective; use promoting, halving, hyperband, one-epoch or none")
    if faults:
        raise InputError(f"--objective {','.join(space.objectives)}: {'; '.join(faults)}")


def _check_pretrained(configs: list[TrialConfig], faces: Faces) -> None:
    """Load every weights file once, so that a missing or wrong one is reported before anything is written."""
    by_file = {(config.net.name, config.transfer.weights): config for config in configs if config.transfer.pretrained}
    if not by_file:
        return
    from fer_models.training.transfer import load_pretrained
    from sweeps.trial.build_net import new_net

    for config in by_file.values():
        load_pretrained(new_net(config, faces), config.net, config.transfer)


def check_graphs(spec: SweepSpec) -> None:
    """Refuse CUDA graphs if the trials run on CPU cores."""
    if spec.cuda_graphs == "on" and spec.device == "cpu":
        raise InputError("--cuda-graphs on: the trials run on cores; use it with --device cuda, or --cuda-graphs off")


def check_groups(spec: SweepSpec) -> None:
    """Refuse combinations of replicates, folds and confirmations that exclude each other."""
    if spec.replicates and spec.folds:
        raise InputError(
            f"--replicates {spec.replicates} and --folds {spec.folds}: give one; folds also differ in their seeds"
        )
    if spec.confirm and spec.confirm > spec.trials:
        raise InputError(f"--confirm {spec.confirm}: the sweep has {spec.trials} trials; give at most {spec.trials}")
    if spec.folds and spec.data.fold:
        raise InputError(
            f"--fold {spec.data.fold}/{spec.data.folds} is one fold and --folds {spec.folds} is all: give one of them"
        )


def check_budgets(plan: Plan) -> None:
    """Refuse incomplete budgets, and those that are used up."""
    spec = plan.spec
    if spec.max_cost is not None and spec.price_per_hour is None:
        raise InputError(f"--max-cost {spec.max_cost:g}: needs --price-per-hour, what the machine costs")
    if spec.max_cost is None and spec.price_per_hour is not None and not plan.recorded:
        raise InputError(f"--price-per-hour {spec.price_per_hour:g}: is for --max-cost; give both")
    if spec.gpu_hours is not None and spec.device == "cpu" and not plan.recorded:
        raise InputError(f"--gpu-hours {spec.gpu_hours:g}: trials on cpu use no GPU; give --cpu-hours")
    drawn = spec.trials - len(spec.baselines)
    if spec.until_gain is not None and drawn <= LEAST_TRIALS:
        raise InputError(
            f"--until-gain {spec.until_gain:g}: takes effect after {LEAST_TRIALS} drawn trials, and the sweep has "
            f"only {drawn}; use --trials N with N above {LEAST_TRIALS + len(spec.baselines)}, or omit it"
        )
    if plan.recorded and not plan.is_finished():
        plan.budgets.refuse_if_used_up(plan.recorded)


def check_draws(space: Space, seed: int) -> None:
    """Refuse a space that its sampler cannot search."""
    from sweeps.search.proposals import random_trials
    from sweeps.search.samplers import check_sampler

    check_sampler(space, random_trials(seed))


def check_configurations(
    configs: list[TrialConfig], faces: Faces, spec: SweepSpec, hardware: Hardware | None = None
) -> None:
    """Refuse configurations that cannot be trained on these faces, or with these options on this hardware."""
    _check_pretrained(configs, faces)
    capability = hardware.capability if hardware else None
    emulated = spec.device == "cuda" and capability is not None and capability < BF16_CAPABILITY
    if emulated and any(config.precision == "bf16" for config in configs):
        raise InputError(f"precision bf16: {hardware} emulates it, slowly; use --set precision=fp16, or auto")
    if spec.device == "cpu" and any(config.precision == "fp16" for config in configs):
        raise InputError("precision fp16: is only for GPUs; use --set precision=fp32, or auto")
    images = len(faces.train)
    absent = [
        name for name, count in zip(faces.classes, faces.train.counts(len(faces.classes)), strict=True) if not count
    ]
    if absent and any(config.recipe.class_weights == "balanced" for config in configs):
        raise InputError(
            f"class_weights 'balanced': the train split has no {', '.join(absent)}; "
            "use --set class_weights=none, or --classes without it"
        )
    _check_parts(spec.workers, len(faces.val), {config.recipe.batch_size for config in configs})
    too_large = sorted({config.recipe.batch_size for config in configs if config.recipe.batch_size > images})
    if too_large:
        raise InputError(
            f"batch_size {', '.join(map(str, too_large))}: larger than the train split of {images} images; "
            "use more images, or --set batch_size=N"
        )


def _check_parts(workers: int, val: int, batch_sizes: set[int]) -> None:
    """Refuse batches or a val split that are too small for the number of workers per trial."""
    if min(batch_sizes) < workers:
        raise InputError(
            f"batch_size {min(batch_sizes)}: fewer faces than the {workers} workers of a trial; "
            f"use --set batch_size=N with N at least {workers}, or fewer workers"
        )
    if val < workers:
        raise InputError(f"{workers} workers per trial: the val split has {val} faces; use fewer workers")
