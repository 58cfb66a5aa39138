"""What runs on a node beside its trials: MPS, the watch over memory, and processes that several trials share."""
