"""A net's activations, and the regions of a face that decide its predictions."""
