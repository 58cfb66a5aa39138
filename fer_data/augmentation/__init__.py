"""Preprocessing, augmentation and batches."""
