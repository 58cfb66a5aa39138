"""Readers of all formats of a data set."""
