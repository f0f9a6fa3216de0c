"""Code that every other room uses."""
