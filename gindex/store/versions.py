"""The versions of an index: which there are, and who may write the next one."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gindex.errors import NotAnIndexError, StoreError, VersionError
from gindex.files.locks import held
from gindex.files.open_files import check_shortage
from gindex.store.layout import Layout

MOMENT = 1.0
"""Seconds to wait for another process that writes where nothing else is said: a merge commits in less."""


def version_numbers(layout: Layout) -> list[int]:
    """The numbers of all versions, the oldest first."""
    found = (re.fullmatch(r"(\d{8})\.json", path.name) for path in _listing(layout))
    return sorted(int(match[1]) for match in found if match)


def latest_version(layout: Layout) -> int:
    """The number of the newest version.

    Raises:
        NotAnIndexError: There is no finished index.
    """
    numbers = version_numbers(layout)
    if numbers:
        return numbers[-1]
    if layout.build.is_file():
        raise NotAnIndexError(
            field=layout.root,
            expected="a finished index",
            found="an unfinished build",
            remedy="run the same gindex build again",
        )
    root = layout.root
    found = "no manifests in it" if root.is_dir() else "a file" if root.exists() else "no such folder"
    if re.search(r"(^|/)https?:/", str(root)) and not root.exists():  # a Path has one slash of two
        raise NotAnIndexError(
            field=root,
            expected="the folder of an index",
            found="the address of a service",
            remedy="search and mcp take one, this does not: give the folder that the service was started with",
        )
    raise NotAnIndexError(field=root, expected="an index", found=found, remedy="make one with gindex build")


def require_version(layout: Layout, version: int) -> None:
    """Check that a version is there.

    Raises:
        NotAnIndexError: There is no finished index.
        VersionError: There is no such version.
    """
    latest = latest_version(layout)
    numbers = version_numbers(layout)
    if version not in numbers:
        found = f"{numbers[0]} to {latest}" if len(numbers) > 1 else str(latest)
        raise VersionError(
            field=layout.root, expected=f"version {version}", found=found, remedy=f"see gindex versions {layout.root}"
        )


def next_version(layout: Layout) -> int:
    """The number that the next version will have."""
    return max(version_numbers(layout), default=0) + 1


@contextmanager
def writing(layout: Layout, wait: float = MOMENT) -> Iterator[None]:
    """Be the only writer of an index.

    Args:
        layout: The index.
        wait: Seconds to wait until no other process writes; infinity for as long as it takes.

    Raises:
        NotAnIndexError: There is no finished index.
        BusyError: Another process is writing.
        StoreError: The directory cannot be written.
    """
    latest_version(layout)
    with explained(layout), held(layout.lock, wait=wait):
        yield


@contextmanager
def explained(layout: Layout) -> Iterator[None]:
    """Turn the operating system's errors about writing into gindex's.

    Raises:
        StoreError: The disk is full, read-only, failing, or permission is denied.
        ResourceError: The system lets no more files be opened.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        check_shortage(error, layout.root)
        remedy = "check free space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "check permissions"
        raise StoreError(
            field=layout.root,
            expected="to write the index",
            found=error,
            remedy=f"{remedy}, then run the same command again",
        ) from error


def _listing(layout: Layout) -> Iterator[Any]:
    try:
        yield from layout.manifests.iterdir()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        check_shortage(error, layout.manifests)
        raise StoreError(
            field=layout.manifests, expected="a readable folder", found=error.strerror, remedy="check permissions"
        ) from error
