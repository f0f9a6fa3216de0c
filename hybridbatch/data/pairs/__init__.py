"""Makes queries and passages from text that has none."""
