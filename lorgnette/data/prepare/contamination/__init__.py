"""Contamination: which pictures of a source a benchmark has too."""
