"""Copies the journal to MLflow, exactly once."""
