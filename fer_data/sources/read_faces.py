"""What each reader of a source returns, before the fingerprint and the cache folder are made."""

from __future__ import annotations

from dataclasses import dataclass

from fer_data.faces import Split

Splits = tuple[Split, Split, Split]


@dataclass(frozen=True, eq=False)
class ReadFaces:
    """A source as it was read: train, val and test, and notes about them.

    `notes` are shown beside any number from this data. `left_out` has one line per faulty row or file that was left out
    on request. Names in it are relative to the source, so that a copy elsewhere gives the same lines. It is part of the
    fingerprint, and its count and first lines become a further note. Readers resize with `fer_data.images.resizing`,
    whose `room` allocates images that are too large for memory on disk.
    """

    name: str
    classes: tuple[str, ...]
    splits: Splits
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
