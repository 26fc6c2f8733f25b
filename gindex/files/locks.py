"""Locks that end with the process that holds them: `flock` on a file that is removed afterwards.

The kernel lets go of a dead process's locks, so no lock has to expire. A holder removes the file before it lets go; who
waited for it finds that the file has gone and takes a new one.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gindex.errors import BusyError, StoreError

_HELD = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def held(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the lock of the file at `path`.

    Args:
        path: A file in a directory that exists.
        shared: Together with other shared holders, not alone.
        wait: Wait for it, as long as it takes.

    Raises:
        BusyError: Another process holds it, and `wait` is not set.
        StoreError: The file system has no locks.
        OSError: The file cannot be made.
    """
    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    descriptor = _acquire(path, mode)
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


def _acquire(path: Path, mode: int) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, mode)
            if _is_current(descriptor, path):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            raise _explained(path, error) from error
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
