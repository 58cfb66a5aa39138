"""HTML pages: reports and comparisons."""
