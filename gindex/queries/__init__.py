"""Queries and their tokens."""
