"""One suite per protocol, run over all its implementations."""
