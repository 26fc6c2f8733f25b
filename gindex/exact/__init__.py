"""Influence recomputed: the re-rank, explanations, and how well stored scores agree with it."""
