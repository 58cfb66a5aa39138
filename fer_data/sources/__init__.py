"""Readers: every form the data comes in becomes one Faces."""
