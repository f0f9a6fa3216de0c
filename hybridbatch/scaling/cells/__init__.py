"""The cells of a sweep: planned, run, kept."""
