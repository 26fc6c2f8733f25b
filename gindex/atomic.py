"""Publish files so that each is whole or absent: write aside, fsync, rename, fsync the directory."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c

BLOCK = 1 << 22
"""Bytes read at a time while a checksum is computed."""


def publish(path: Path, write: Callable[[Path], None]) -> None:
    """Create or replace a file whose content `write` puts at the path it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        write(partial)
        publish_written(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def publish_written(written: Path, path: Path) -> None:
    """Move a file that is already written, on the same file system, to its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sync(written)
    os.replace(written, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> str:
    """Return the CRC-32C of a file, eight hexadecimal digits."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = google_crc32c.extend(crc, block)
    return f"{crc:08x}"


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
