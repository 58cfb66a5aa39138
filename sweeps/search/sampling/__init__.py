"""Samplers of our own: evenly spread, and by evolution."""
