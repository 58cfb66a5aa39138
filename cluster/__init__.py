"""Connects sweeps to Ray, on this machine or on a cluster."""
