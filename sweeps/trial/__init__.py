"""One trial, as its worker runs it."""
