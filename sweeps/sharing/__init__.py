"""Divides the slots of one machine, or of one Ray cluster, between the sweeps that run there."""
