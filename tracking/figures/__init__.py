"""Figures of trials and sweeps."""
