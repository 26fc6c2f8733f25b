"""The versions of an index: which there are, and how a new one is committed."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gindex.distribution import VERSION
from gindex.errors import NotAnIndexError, StoreError, VersionError
from gindex.files.atomic import publish_new
from gindex.files.locks import held
from gindex.store.files import encode_json
from gindex.store.layout import FORMAT_VERSION, Layout
from gindex.store.manifest import Manifest


def version_numbers(layout: Layout) -> list[int]:
    """Return the numbers of all versions, the oldest first."""
    found = (re.fullmatch(r"(\d{8})\.json", path.name) for path in _listing(layout))
    return sorted(int(match[1]) for match in found if match)


def latest_version(layout: Layout) -> int:
    """Return the number of the newest version.

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
    """Return the number that the next version will have."""
    return max(version_numbers(layout), default=0) + 1


def commit(layout: Layout, manifest: Manifest, operation: dict[str, Any], **changes: Any) -> Manifest:
    """Commit the next version: `manifest` with these changes. All its files must be published.

    Raises:
        VersionError: Another writer committed the number first; its version stands.
    """
    made = replace(
        manifest,
        format_version=FORMAT_VERSION,
        version=next_version(layout),
        operation=operation,
        gindex_version=VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **changes,
    )
    path = layout.manifest(made.version)
    try:
        publish_new(path, encode_json(made.content()))
    except FileExistsError as error:
        raise VersionError(
            field=path,
            expected=f"to commit version {made.version}",
            found="that another process did",
            remedy="nothing of it is changed: run this again to go on from there",
        ) from error
    return made


@contextmanager
def writing(layout: Layout) -> Iterator[None]:
    """Be the only writer of an index.

    Raises:
        NotAnIndexError: There is no finished index.
        BusyError: Another process is writing.
        StoreError: The directory cannot be written.
    """
    latest_version(layout)
    with explained(layout), held(layout.lock):
        yield


@contextmanager
def explained(layout: Layout) -> Iterator[None]:
    """Turn the operating system's errors about writing into gindex's.

    Raises:
        StoreError: The disk is full, read-only, failing, or permission is denied.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
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
        raise StoreError(
            field=layout.manifests, expected="a readable folder", found=error.strerror, remedy="check permissions"
        ) from error
