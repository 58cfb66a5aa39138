"""Layers, initialization and input handling that the nets share."""
