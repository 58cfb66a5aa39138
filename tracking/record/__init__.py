"""The journal and the files of a sweep: the truth that everything else is rebuilt from."""
