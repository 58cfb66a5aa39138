"""Training, evaluation and weight files."""
