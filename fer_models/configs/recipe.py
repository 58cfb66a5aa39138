"""How a net is trained: frozen, validated as a whole, importable without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fer_common.frozen import Finite
from fer_models.configs.config_faults import validate_with

Optimizer = Literal["sgd", "nesterov", "adam", "adamw"]
LrPolicy = Literal["constant", "step", "multistep", "inv", "poly", "cosine", "onecycle", "plateau", "wsd"]
Precision = Literal["fp32", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]
Views = Literal["plain", "mirror", "ten_crop"]
"""The views of a face in evaluation: the face; the face and its mirror image; or Krizhevsky's ten crops (2012, 4.1):
centre and corners of the face with 4 pixels of repeated border, and their mirror images."""

# The fields that each policy uses besides `lr`; others of these would be ignored, so they are refused.
_POLICY_FIELDS: dict[str, frozenset[str]] = {
    "constant": frozenset(),
    "step": frozenset({"gamma", "step_iterations"}),
    "multistep": frozenset({"gamma", "step_iterations"}),
    "inv": frozenset({"gamma", "power"}),
    "poly": frozenset({"power"}),
    "cosine": frozenset(),
    "onecycle": frozenset(),
    "plateau": frozenset({"gamma", "patience_epochs"}),
    "wsd": frozenset(),
}
_TEMPERATURE, _SHARE = 2.0, 0.7
_WITHOUT_TEACHERS = {"distill_sha256": None, "distill_temperature": _TEMPERATURE, "distill_share": _SHARE}
"""Fields that only a net with teachers may change."""
_POLICY_KNOBS = ("gamma", "power", "step_iterations", "patience_epochs")
_ITERATION_POLICIES = ("step", "multistep", "inv", "poly")


def _one_fault(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Report one fault, instead of one for each of the two possible types."""
    try:
        return handler(value)
    except ValidationError:
        rule = "input should be a whole number from 1 on, or for 'multistep' a list of them"
        raise PydanticCustomError("steps", rule) from None


_Iterations = Annotated[int, Field(ge=1)]
_Steps = Annotated[_Iterations | tuple[_Iterations, ...] | None, WrapValidator(_one_fault)]

Kernel = Literal["linear", "rbf"]
"""The kernel of a support vector machine that replaces the last layer."""


class Recipe(Finite):
    """How a net is trained. One iteration is one batch; the n-th iteration of a run has index n-1.

    The learning rate at index i of N, with Caffe's formulas for `step`, `multistep`, `inv` and `poly`:

    - `constant`  lr
    - `step`      lr * gamma ** floor(i / step_iterations)
    - `multistep` lr * gamma ** (how many of the step_iterations are not above i)
    - `inv`       lr * (1 + gamma * i) ** -power
    - `poly`      lr * (1 - i / reference_iterations) ** power, and 0 from there on
    - `cosine`    lr * (1 + cos(pi * i / N)) / 2
    - `onecycle`  up from lr/25 over the first 30 %, then down to lr/250,000 (Smith and Topin 2018); unlike torch's
      OneCycleLR it does not change the momentum
    - `plateau`   lr, multiplied by gamma whenever `val_accuracy` has not risen for more than `patience_epochs` epochs
    - `wsd`       up over the first epoch, then lr, then over the last fifth of the epochs lr * (1 - sqrt(share of the
      cooldown that is past)) (Hägele et al. 2024); epochs before the cooldown do not depend on the length of the run

    With `schedule="scaled"`, Caffe's four take i * reference_iterations / N for i: a report that steps at
    each fifth of its run steps at each fifth of ours. `"exact"` uses the iterations unscaled.

    SGD is torch's, v = momentum * v + gradient and w = w - rate * v. In Caffe v = momentum * v +
    rate * gradient and w = w - v. They are equal while the rate is constant. After a reduction Caffe makes about
    1 / (1 - momentum) further steps at the old rate.
    """

    optimizer: Optimizer = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD; for Adam and AdamW their first beta."""
    weight_decay: float = Field(default=0.0, ge=0)
    decay_bias_and_norm: bool = False
    bias_lr_factor: float = Field(default=1.0, gt=0)
    """Caffe's nets train biases at twice the learning rate of the weights."""
    batch_size: int = Field(default=128, ge=1)
    lr_policy: LrPolicy = "constant"
    gamma: float | None = Field(default=None, gt=0)
    power: float | None = Field(default=None, gt=0)
    step_iterations: _Steps = None
    """The length of each step; for `multistep` the iterations at which the rate falls, as Caffe's stepvalue."""
    patience_epochs: int | None = Field(default=None, ge=0)
    reference_iterations: int | None = Field(default=None, ge=1)
    """Length of the run that the policy was written for, Caffe's max_iter."""
    schedule: Literal["scaled", "exact"] = "scaled"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weights a class by images / (classes * its images), as scikit-learn does."""
    clip_norm: float | None = Field(default=None, gt=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay per iteration of a running average of the weights; the average is what is validated.

    At iteration t it is at most (1 + t) / (10 + t)."""
    distill: str = Field(default="none", min_length=1)
    """The teachers of this net: runs, or a sweep for its best runs; `none` trains by labels only."""
    distill_sha256: tuple[str, ...] | None = None
    """SHA-256 of the teachers' weights, set when a trial is planned."""
    distill_temperature: float = Field(default=_TEMPERATURE, gt=0)
    """Teachers and student are compared at this temperature (Hinton et al. 2015, arXiv:1503.02531)."""
    distill_share: float = Field(default=_SHARE, gt=0, le=1)
    """The weight of the teachers' term in the loss; that of the labels is the rest."""
    views: Views = "plain"
    """The views over which validation and test average the probabilities."""

    @property
    def is_distilled(self) -> bool:
        """Whether the net has teachers."""
        return self.distill != "none"

    @property
    def spans_run(self) -> bool:
        """Whether the learning rate of every epoch depends on the length of the run."""
        if self.lr_policy in _ITERATION_POLICIES:
            return self.schedule == "scaled"
        return self.lr_policy in ("cosine", "onecycle")

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, data: Any, handler: ModelWrapValidatorHandler[Recipe]) -> Recipe:
        return validate_with(cls, data, handler, _cross_faults)


def _cross_faults(values: dict[str, Any]) -> list[tuple[str, str]]:
    """The faults between the fields of a recipe, as (field, message)."""
    policy = values["lr_policy"]
    known = isinstance(policy, str) and policy in _POLICY_FIELDS
    faults = _policy_faults(policy, values) if known else []
    names, hashes = str(values["distill"]).split(","), values["distill_sha256"]
    if isinstance(hashes, list | tuple) and len(hashes) != len(names):
        faults.append(("distill_sha256", f"one for each of the {len(names)} teachers, or leave it out"))
    if values["distill"] == "none":
        faults += [
            (name, "there is no teacher; give distill=NAME, a sweep or a run, or omit it")
            for name, unused in _WITHOUT_TEACHERS.items()
            if values[name] != unused
        ]
    if values["optimizer"] == "nesterov" and values["momentum"] == 0:
        faults.append(("momentum", "optimizer 'nesterov' needs a momentum above 0; or use 'sgd'"))
    return faults


def _policy_faults(policy: str, values: dict[str, Any]) -> list[tuple[str, str]]:
    needed = _POLICY_FIELDS[policy]
    faults = []
    for knob in _POLICY_KNOBS:
        if knob in needed and values[knob] is None:
            faults.append((knob, f"lr_policy '{policy}' needs {knob}"))
        elif knob not in needed and values[knob] is not None:
            faults.append((knob, f"lr_policy '{policy}' does not use {knob}; omit it"))
    reference = values["reference_iterations"]
    if policy not in _ITERATION_POLICIES and reference is not None:
        faults.append(("reference_iterations", f"lr_policy '{policy}' always spans the run; omit it"))
    if policy in _ITERATION_POLICIES and reference is None:
        if values["schedule"] == "scaled":
            message = "schedule 'scaled' needs the length of the report's run here; or use schedule='exact'"
            faults.append(("reference_iterations", message))
        elif policy == "poly":
            faults.append(("reference_iterations", "lr_policy 'poly' needs the iteration at which the rate is 0"))
    faults += _step_faults(policy, values["step_iterations"])
    if policy == "plateau" and isinstance(values["gamma"], int | float) and values["gamma"] >= 1:
        faults.append(("gamma", "lr_policy 'plateau' lowers the learning rate: gamma must be below 1"))
    return faults


def _step_faults(policy: str, steps: object) -> list[tuple[str, str]]:
    several = isinstance(steps, list | tuple)
    if policy == "step" and several:
        return [("step_iterations", "lr_policy 'step' takes one length for all steps; 'multistep' takes a list")]
    if policy == "multistep" and isinstance(steps, int):
        return [("step_iterations", "lr_policy 'multistep' takes a list of iterations, as [150,300]")]
    if policy == "multistep" and isinstance(steps, list | tuple) and not _rising(steps):
        return [("step_iterations", "lr_policy 'multistep' takes one iteration or more, each above the one before")]
    return []


def _rising(steps: Sequence[object]) -> bool:
    numbers = [step for step in steps if isinstance(step, int | float)]
    return len(steps) > 0 and numbers == sorted(set(numbers))
