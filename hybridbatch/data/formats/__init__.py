"""Readers of the file forms of data sets."""
