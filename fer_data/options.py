"""Options of a data set: its source, how it is read, and which part of it is used."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    Field,
    InstanceOf,
    ValidationError,
    field_validator,
    model_validator,
)

from fer_common.flags import Flag, explain, given_values
from fer_common.frozen import Finite
from fer_data.faces import DataError

ResizeMethod = Literal["area", "bilinear", "bicubic", "lanczos"]
LabelKind = Literal["fer", "ferplus-plurality", "ferplus-majority", "ferplus-soft"]
"""FER2013's labels, or FER+'s: the plurality of its votes, the majority, or all votes as shares in training."""

_FERPLUS_LABELS = [label for label in get_args(LabelKind) if label != "fer"]
Dedupe = Literal["none", "train"]


def labels_named_today(name: str) -> str:
    """The current name of a kind of labels: version 0.1.0 recorded `ferplus-plurality` as `ferplus`."""
    return "ferplus-plurality" if name == "ferplus" else name


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _fold(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}': expected K/N, as 1/5 for the first of five folds")
    return int(match[1]), int(match[2])


class DataOptions(Finite):
    """A source, how it is read, and its subsets, applied in this order: classes, fold, dedupe, limit_train.

    `source` is a file or a folder; None or "synthetic" means the synthetic faces. The options up to `skip_bad` change
    how the source is read. The others choose a part of the result.
    """

    source: Annotated[
        InstanceOf[str] | None,
        Flag("csv, folder of images, LMDB … or 'synthetic' (default: $FER_DATA, else synthetic)", "PATH", name="data"),
    ] = None
    resize: Annotated[
        int | None, Field(ge=8, le=512), Flag("resize every image to this side, 8..512 pixels", "SIDE")
    ] = None
    resize_method: Annotated[ResizeMethod, Flag("method of --resize (default area, which is Pillow's BOX)")] = "area"
    ferplus: Annotated[InstanceOf[str] | None, Flag("FER+'s fer2013new.csv, for its labels", "PATH")] = None
    labels: Annotated[
        LabelKind,
        Flag(
            "FER2013's labels (default), FER+'s most frequent vote, FER+'s own majority, or FER+'s shares of votes",
            read=labels_named_today,
        ),
    ] = "fer"
    skip_bad: Annotated[bool, Flag("omit faulty rows and files, and list them")] = False

    dedupe: Annotated[Dedupe, Flag("train: remove train images that are also in val or test")] = "none"
    classes: Annotated[
        tuple[str, ...] | None,
        Flag(
            "only these classes, as happy,sad, numbered in this order",
            "A,B,…",
            read=_names,
            write=lambda options: [",".join(options.classes)],
        ),
    ] = None
    fold: Annotated[
        int | None,
        Field(ge=1),
        Flag(
            "cross-validation: use fold K of N of train and val as val",
            "K/N",
            read=_fold,
            write=lambda options: [f"{options.fold}/{options.folds}"],
        ),
    ] = None
    folds: Annotated[int | None, Field(ge=2)] = None
    fold_seed: Annotated[int, Field(ge=0)] = 0
    limit_train: Annotated[int | None, Field(ge=1), Flag("train on N images, stratified by class", "N")] = None
    limit_seed: Annotated[int, Field(ge=0)] = 0

    @property
    def has_subset(self) -> bool:
        """Whether only a part of the source is used."""
        return self.dedupe != "none" or any(part is not None for part in (self.classes, self.fold, self.limit_train))

    def with_absolute_paths(self) -> Self:
        """These options with absolute paths, which do not depend on the working folder."""
        paths = {name: str(Path(path).absolute()) for name in ("source", "ferplus") if (path := getattr(self, name))}
        return self.model_copy(update=paths)

    @model_validator(mode="before")
    @classmethod
    def _fold_of_folds(cls, values: Any) -> Any:
        """Accept `fold=(K, N)`, as the command line has it, as two settings."""
        match values:
            case {"fold": (fold, folds), **others}:
                return {**others, "fold": fold, "folds": folds}
        return values

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

    @classmethod
    def given(cls, arguments: argparse.Namespace, source: str | None) -> DataOptions:
        """The options given on a command line.

        Raises:
            DataError: lists every option that is wrong or conflicts with another.
        """
        try:
            return cls.model_validate(given_values(arguments, cls) | {"source": source})
        except ValidationError as error:
            raise DataError("; ".join(explain(error, cls))) from error
