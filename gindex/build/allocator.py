"""Memory that is freed, given back to the system: glibc keeps it for later, in one piece or as holes between others."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

MAPPED_BYTES = 1 << 18
"""Pieces of memory from this size on go back at once where that is wanted. It costs up to a third of a pass."""

_MMAP_THRESHOLD, _LARGEST_THRESHOLD = -3, 32 << 20
"""As malloc.h of glibc names and limits it."""


def release() -> None:
    """Give memory that a phase has freed back to the system, where the C library would keep it for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Have the C library of Linux map large pieces of memory one by one, where it would keep holes between others."""
    option = getattr(ctypes.CDLL(None), "mallopt", lambda _parameter, _value: 0)
    option(_MMAP_THRESHOLD, MAPPED_BYTES)
    try:
        yield
    finally:
        option(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)  # where it ends up by itself in a process that frees large pieces
        release()
