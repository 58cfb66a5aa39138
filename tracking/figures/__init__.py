"""Pictures of trials and sweeps."""
