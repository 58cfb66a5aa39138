"""Shared by all packages: one-line errors, name suggestions, atomic file writes, declared options."""
