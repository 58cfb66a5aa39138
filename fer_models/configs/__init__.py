"""Configurations of nets and training: validated, and importable without torch."""
