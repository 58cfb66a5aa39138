"""The running sweep: assigns trials to workers, records reports, prunes."""
