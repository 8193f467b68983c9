"""Answers and scores of an evaluation: stored, compared, scored again, sent to the servers of benchmarks."""
