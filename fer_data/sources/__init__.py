"""Readers: each form of the data becomes one `Faces`."""
