"""What each reader of a source returns, before it is given a fingerprint and a place in the cache."""

from __future__ import annotations

from dataclasses import dataclass

from fer_data.faces import Split

Splits = tuple[Split, Split, Split]


@dataclass(frozen=True, eq=False)
class ReadFaces:
    """A source as it was read: train, val and test, and what is to be said about them.

    `notes` are remarks to be seen beside any number from this data. `left_out` has one line a faulty row or
    file that was left out on request, named relative to the source so that a copy elsewhere reads alike; it
    enters the fingerprint, and its count and first lines become a note of their own. Readers resize with
    `fer_data.images.resizing`, whose `room` keeps images that memory should not hold on disk.
    """

    name: str
    classes: tuple[str, ...]
    splits: Splits
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
