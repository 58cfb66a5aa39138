"""The nets that visitors can try."""
