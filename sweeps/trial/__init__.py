"""Runs one trial in its worker."""
