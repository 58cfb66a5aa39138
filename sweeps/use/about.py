"""Facts shown beside a net's predictions: its training data and its accuracy."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from sweeps.run_kinds import Ensemble
from sweeps.runs import Run
from sweeps.trial.messages import val_title
from tracking.metrics.scores import Interval, wilson_interval
from tracking.metrics.summary import data_name
from tracking.record.predictions import best_predictions


class About(BaseModel):
    """A net and its validation result: `right` of `n` faces correct, and the same without leaked faces."""

    model_config = ConfigDict(frozen=True)

    name: str
    net: str
    dataset: str
    synthetic: bool
    split: str
    so_far: str = ""
    """Of a trial that is not over, which epoch's net this is."""
    right: int = 0
    n: int = 0
    leak_free_right: int = 0
    leak_free_n: int = 0

    @property
    def data(self) -> str:
        """The data set, with a warning if its faces are synthetic."""
        return data_name(self.dataset, self.synthetic)

    @property
    def accuracy(self) -> Interval | None:
        """Accuracy on the validation split, with its 95 % interval. None if it is not known."""
        return wilson_interval(self.right, self.n) if self.n else None

    @property
    def leak_free(self) -> Interval | None:
        """Leak-free accuracy, with its 95 % interval."""
        return wilson_interval(self.leak_free_right, self.leak_free_n) if self.leak_free_n else None

    @property
    def sentence(self) -> str:
        """The facts in one sentence."""
        share = self.accuracy
        record = (
            f"{share.value:.1%} of {self.n:,} faces of {self.split} correct (95 % interval {share.low:.1%} to "
            f"{share.high:.1%})"
            if share
            else "its accuracy is not recorded"
        )
        so_far = f"; the net of {self.so_far}" if self.so_far else ""
        return f"{self.name}: {self.net}, trained on {self.data}{so_far}; {record}. It can be wrong about people."


def about_run(run: Run) -> About:
    """The facts about a run."""
    predictions = best_predictions(run.files, run.trial)
    known = {}
    if predictions:
        clean = (
            predictions.is_right[~predictions.leaked] if predictions.leaked is not None else predictions.is_right[:0]
        )
        known = {
            "right": int(predictions.is_right.sum()),
            "n": len(predictions.labels),
            "leak_free_right": int(clean.sum()),
            "leak_free_n": len(clean),
        }
    spec = run.spec
    net = f"ensemble of {', '.join(run.kind.members)}" if isinstance(run.kind, Ensemble) else run.config.net.name
    return About(
        name=run.name,
        net=net,
        dataset=spec.dataset,
        synthetic=spec.synthetic,
        split=run.split,
        so_far=run.so_far,
        **known,
    )


def about_version(name: str, version: str, tags: Mapping[str, str]) -> About:
    """The facts about a registered model; only nets of real faces are registered."""
    dataset = tags.get("dataset", "unknown faces")
    right, n = (int(tags.get(tag, "0")) for tag in ("val.right", "val.n"))
    return About(
        name=f"{name} version {version}", net="registered model", dataset=dataset, synthetic=False,
        split=tags.get("val.split") or val_title(dataset), right=right, n=n,
    )  # fmt: skip
