"""Pictures of trials and sweeps, and what they are drawn from."""
