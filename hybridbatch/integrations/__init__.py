"""Hybrid batches in other people's training loops."""
