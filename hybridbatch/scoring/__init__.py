"""Scoring: ranks of relevant passages, metrics, language bias, significance; arrays in, arrays out."""
