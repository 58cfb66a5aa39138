"""The journal and the files of a sweep, from which everything else can be rebuilt."""
