"""Atomic writes of files, and locks on folders."""
