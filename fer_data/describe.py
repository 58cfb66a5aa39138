"""Describes a data set: counts, duplicates and label conflicts, as text, JSON and for reports."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from fer_data.cache.leaks import leaks
from fer_data.faces import Faces, Split

Description = dict[str, Any]


def describe(faces: Faces) -> Description:
    """A description of a data set as JSON values.

    counts: split -> class -> images; duplicates: split -> images that repeat an earlier image of that split. The other
    numbers are described in `fer_data.cache.leaks.Leaks`.
    """
    found = leaks(faces)
    height, width = faces.train.images.shape[1:]
    return {
        "name": faces.name,
        "fingerprint": faces.fingerprint,
        "synthetic": faces.synthetic,
        "classes": list(faces.classes),
        "height": height,
        "width": width,
        "rows": found.images,
        "counts": {split.name: _counts(faces, split) for split in faces.splits},
        "distinct_images": found.distinct_images,
        "duplicates": dict(zip((split.name for split in faces.splits), found.duplicates, strict=True)),
        "val_in_train": found.val_in_train,
        "val_in_train_other_label": found.val_in_train_other_label,
        "test_in_train": found.test_in_train,
        "test_in_train_other_label": found.test_in_train_other_label,
        "test_in_train_or_val": found.test_in_train_or_val,
        "label_conflict_groups": found.label_conflict_groups,
        "blank_images": found.blank_images,
        "notes": list(faces.notes),
    }


def counts_table(faces: Faces) -> Table:
    """The number of images of each class in each split, and their share of the split."""
    table = Table(header_style="bold", footer_style="bold", show_footer=True)
    table.add_column("class", footer="all")
    for split in faces.splits:
        table.add_column(split.name, justify="right", footer=f"{len(split):,}")
        table.add_column("%", justify="right", style="dim")
    for name in faces.classes:
        cells = []
        for split in faces.splits:
            count = _counts(faces, split)[name]
            cells += [f"{count:,}", f"{100 * count / len(split):.1f}"]
        table.add_row(name, *cells)
    return table


def remarks(description: Description) -> list[str]:
    """Remarks on a data set besides its counts, one sentence each."""
    d, n = description, {split: sum(counts.values()) for split, counts in description["counts"].items()}
    doubles = ", ".join(f"{split} {count:,}" for split, count in d["duplicates"].items())
    return [
        f"{d['rows']:,} images of {d['width']}×{d['height']}, {d['distinct_images']:,} of them distinct; "
        f"copies within a split: {doubles}",
        f"val images that are also in train: {_share(d['val_in_train'], n['val'])}, "
        f"{d['val_in_train_other_label']:,} of them only under another label",
        f"test images that are also in train: {_share(d['test_in_train'], n['test'])}, "
        f"{d['test_in_train_other_label']:,} of them only under another label; "
        f"in train or val: {_share(d['test_in_train_or_val'], n['test'])}",
        f"pictures with more than one label: {d['label_conflict_groups']:,}; blank images: {d['blank_images']:,}",
    ]


def _counts(faces: Faces, split: Split) -> dict[str, int]:
    return dict(zip(faces.classes, split.counts(len(faces.classes)), strict=True))


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f} %)" if part else "0"
