"""Faults under gindex's store, and what must be true afterwards; used by `tools/fault_run.py` and the tests."""
