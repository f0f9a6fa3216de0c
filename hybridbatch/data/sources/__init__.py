"""The registry of training sources, one small module each."""
