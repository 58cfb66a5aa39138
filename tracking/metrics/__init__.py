"""Scores of predictions, their intervals, and comparisons of runs."""
