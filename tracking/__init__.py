"""The records of a sweep: its folder, its journal, and everything that is rebuilt from them."""
