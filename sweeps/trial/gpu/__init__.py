"""The GPU of a trial: its memory, and its faults."""
