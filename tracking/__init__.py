"""The records of a sweep: its folder, its journal, and what is rebuilt from them."""
