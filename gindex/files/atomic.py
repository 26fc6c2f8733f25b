"""Atomic publication of files, whole or not at all: write aside, fsync, rename, fsync the directory."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c

READ_BYTES = 1 << 22
"""Bytes read at a time while a checksum is computed."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def publish(path: Path, write: Callable[[Path], None]) -> None:
    """Create or replace a file whose content `write` puts at the path it is given."""
    make_folder(path.parent)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        write(partial)
        publish_written(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def publish_written(written: Path, path: Path) -> None:
    """Move a file that is already written, on the same file system, to its place."""
    make_folder(path.parent)
    sync(written)
    os.replace(written, path)
    sync(path.parent)


def publish_new(path: Path, content: bytes) -> None:
    """Create a file; of two that try at once one succeeds.

    Raises:
        FileExistsError: It is there already, and stays as it is.
    """
    make_folder(path.parent)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        sync(partial)
        _link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a directory and its parents, so that a power loss does not take them away again."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems keep no directory that could be flushed, and say so.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def checksum(path: Path) -> str:
    """Return the CRC-32C of a file, eight hexadecimal digits."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            crc = google_crc32c.extend(crc, block)
    return f"{crc:08x}"


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, if it is there."""
    shutil.rmtree(path, ignore_errors=True)


def _link(written: Path, path: Path) -> None:
    try:
        os.link(written, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here: the caller's lock stands between the question and the rename.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        os.replace(written, path)
