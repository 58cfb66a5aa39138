"""What a person may ask of a data set: where it comes from, how it is read, and which part of it is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, field_validator, model_validator

ResizeMethod = Literal["area", "bilinear", "bicubic", "lanczos"]
LabelKind = Literal["fer", "ferplus-plurality", "ferplus-majority", "ferplus-soft"]
"""FER+'s most frequent vote, the majority that FER+'s own program takes, or all votes as shares in training."""

_FERPLUS_LABELS = [label for label in get_args(LabelKind) if label != "fer"]
Dedupe = Literal["none", "train"]


def labels_named_today(name: str) -> str:
    """The name of a kind of labels; sweeps of version 0.1.0 have recorded `ferplus-plurality` as `ferplus`."""
    return "ferplus-plurality" if name == "ferplus" else name


class DataOptions(BaseModel):
    """A source, how it is read, and views of it, applied in this order: classes, fold, dedupe, limit_train.

    `source` is a file or a folder; None or "synthetic" are the built-in synthetic faces. The options up to
    `skip_bad` change how the source is read, the others choose a part of what was read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: InstanceOf[str] | None = Field(default=None, description="file or folder; synthetic faces without one")
    resize: int | None = Field(default=None, ge=8, le=512, description="side of every image, pixels")
    resize_method: ResizeMethod = Field(default="area", description="Pillow's BOX, BILINEAR, BICUBIC or LANCZOS")
    ferplus: InstanceOf[str] | None = Field(default=None, description="path of FER+'s fer2013new.csv")
    labels: LabelKind = Field(default="fer", description="whose labels: FER2013's, or FER+'s by one of its rules")
    skip_bad: bool = Field(default=False, description="leave faulty rows or files out, and say which")

    classes: tuple[str, ...] | None = Field(default=None, description="these classes alone, numbered in this order")
    fold: int | None = Field(default=None, ge=1, description="this fold of train and val is the new val, from 1")
    folds: int | None = Field(default=None, ge=2, description="into how many folds train and val are divided")
    fold_seed: int = Field(default=0, ge=0, description="seed of the division into folds")
    dedupe: Dedupe = Field(default="none", description="train: drop train images that also stand in val or test")
    limit_train: int | None = Field(default=None, ge=1, description="so many train images, a stratified choice")
    limit_seed: int = Field(default=0, ge=0, description="seed of that choice")

    @property
    def has_view(self) -> bool:
        """Whether only a part of the source is wanted."""
        return self.dedupe != "none" or any(view is not None for view in (self.classes, self.fold, self.limit_train))

    def with_absolute_paths(self) -> Self:
        """The same files by their absolute paths, which mean the same from any working folder."""
        paths = {name: str(Path(path).absolute()) for name in ("source", "ferplus") if (path := getattr(self, name))}
        return self.model_copy(update=paths)

    @field_validator("source", "ferplus", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _as_named_today(cls, value: object) -> object:
        return labels_named_today(value) if isinstance(value, str) else value

    @field_validator("source")
    @classmethod
    def _synthetic_is_none(cls, value: str | None) -> str | None:
        return None if value == "synthetic" else value

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        faults = []
        if (self.fold is None) != (self.folds is None):
            faults.append("fold and folds belong together: give both or neither")
        elif self.fold is not None and self.folds is not None and self.fold > self.folds:
            faults.append(f"fold {self.fold} of {self.folds}: choose 1 to {self.folds}")
        if self.labels != "fer" and self.ferplus is None:
            faults.append(f"labels '{self.labels}' needs ferplus, the path of FER+'s fer2013new.csv")
        if self.labels == "fer" and self.ferplus is not None:
            faults.append(f"ferplus is not used with labels 'fer': choose labels {', '.join(_FERPLUS_LABELS)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self
