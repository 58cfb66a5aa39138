"""Sweeps that come and go at random."""

from __future__ import annotations

from hypothesis import strategies as some

VISITS = some.lists(
    some.tuples(some.sampled_from("abcdef"), some.floats(0, 60), some.integers(-1, 1), some.floats(0.2, 5)),
    min_size=2,
    max_size=12,
)
"""Of each the name, when it comes, or goes if it is there, in seconds, its priority and its weight."""
