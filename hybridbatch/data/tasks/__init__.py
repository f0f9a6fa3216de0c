"""Retrieval tasks by name, or from the user's own folder."""
