"""The forms in which data sets come."""
