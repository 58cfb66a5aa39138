"""What each reader of a source returns, before fingerprint and cache folder."""

from __future__ import annotations

from dataclasses import dataclass

from fer_data.faces import Split

Splits = tuple[Split, Split, Split]


@dataclass(frozen=True, eq=False)
class ReadFaces:
    """A source as it was read: train, val and test, and notes about them.

    `notes` are shown beside any number from this data. `left_out` has one line per faulty row or
    file that was left out on request, named relative to the source so that a copy elsewhere reads alike; it
    is part of the fingerprint, and its count and first lines become a further note. Readers resize with
    `fer_data.images.resizing`, whose `room` puts images on disk that are too large for memory.
    """

    name: str
    classes: tuple[str, ...]
    splits: Splits
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
