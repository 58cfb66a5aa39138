"""What is done with trials that have ended."""
