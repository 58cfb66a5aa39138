"""Runs a sweep: assigns trials to workers, records reports, prunes."""
