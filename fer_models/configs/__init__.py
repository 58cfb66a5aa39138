"""Configurations of nets and training: validated, and light (no torch)."""
