"""Steering and watching a sweep from another terminal."""
