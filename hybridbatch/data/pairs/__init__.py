"""Queries and passages made of text that has none."""
