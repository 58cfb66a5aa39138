"""Decoding and resizing of single images."""
