"""What a net computes inside, and where in a face its answer comes from."""
