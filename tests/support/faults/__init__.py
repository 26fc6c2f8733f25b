"""Faults under gindex's store, and what must be true afterwards; used by `tools/faults/run.py` and the tests."""
