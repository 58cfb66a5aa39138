"""One memory-mapped copy of each data set per machine, and subsets of it."""
