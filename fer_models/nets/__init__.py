"""The nets, one file per family, and their registry."""
