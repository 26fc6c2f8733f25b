"""Locks that end with the process that holds them: `flock` on a file that is removed afterwards.

The kernel lets go of a dead process's locks, so no lock has to expire. A holder removes the file before it lets go; a
process that waited finds that the file has gone and makes a new one.
"""

import errno
import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gindex.errors import BusyError, StoreError

POLL_SECONDS = 0.02
"""How often a lock is looked at that is waited for a limited time."""

_HELD = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def held(path: Path, *, shared: bool = False, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of the file at `path`.

    Args:
        path: A file in a directory that exists.
        shared: Together with other shared holders, not alone.
        wait: Seconds to wait for it; infinity for as long as it takes.

    Raises:
        BusyError: Another process holds it, and still does after `wait`.
        StoreError: The file system has no locks.
        OSError: The file cannot be made.
    """
    descriptor = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
    try:
        yield
    finally:
        # Of several shared holders the last one removes the file.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_current(descriptor, path):
                path.unlink()
        # A process forked meanwhile has the same open file, so closing this copy alone would let go of nothing.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _acquire(path: Path, mode: int, wait: float) -> int:
    """Open and lock the file, in turn with others where that takes as long as it takes, else by looking again."""
    mode, until = mode | (0 if wait == math.inf else fcntl.LOCK_NB), time.monotonic() + wait
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, mode)
            if _is_current(descriptor, path):
                return descriptor
        except OSError as error:
            if error.errno not in _HELD or time.monotonic() >= until:
                os.close(descriptor)
                raise _explained(path, error) from error
            time.sleep(POLL_SECONDS)
        os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    """Say whether the file that is held is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _explained(path: Path, error: OSError) -> Exception:
    if error.errno in _HELD:
        return BusyError(
            field=path.parent,
            expected="no other writer",
            found="that another gindex process is writing here",
            remedy="wait until it is done, then run this again",
        )
    if error.errno in _UNSUPPORTED:
        return StoreError(
            field=path,
            expected="a file system with locks",
            found=error.strerror,
            remedy="put the index on another one to write",
        )
    return error
