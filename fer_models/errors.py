"""The exceptions of this package."""

from fer_common.errors import UserError


class ModelError(UserError):
    """A net or a weights file is not usable; the message has the rule, the value and the way out."""


class Diverged(ModelError):  # noqa: N818  (an outcome of a trial, not a fault)
    """A loss became NaN or infinite; `step` counts the iterations of the whole run, from 1."""

    def __init__(self, metric: str, epoch: int, step: int, value: float) -> None:
        super().__init__(f"diverged: {metric} is {value} at epoch {epoch} step {step}")
        self.metric = metric
        self.epoch = epoch
        self.step = step
        self.value = value

    def __reduce__(self) -> tuple[type, tuple[str, int, int, float]]:
        return type(self), (self.metric, self.epoch, self.step, self.value)


class Cancelled(Exception):  # noqa: N818  (asked for, not a fault)
    """Training was cancelled in the middle of an epoch."""
