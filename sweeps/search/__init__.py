"""Samplers, pruners, and the study that combines them: what to try next, and which trials to prune."""
