"""What to try next, and which trials to give up: samplers, pruners and the study that holds them."""
