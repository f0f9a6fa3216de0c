"""Hybrid monolingual and cross-lingual batches for multilingual dense retrieval."""

__version__ = "0.1.0"
