"""Filters that leave out or change rows of training data."""
