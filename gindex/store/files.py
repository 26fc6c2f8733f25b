"""Files with checksums, and JSON files that carry their own.

A JSON file of the index ends with the field `crc32c`, the CRC-32C of all bytes before the comma in front of it.
"""

import builtins
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from gindex.errors import CorruptStoreError
from gindex.files.atomic import checksum, publish
from gindex.files.open_files import check_shortage
from gindex.store.layout import REMEDY

_MARK = b',\n "crc32c": "'


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of the index.

    Attributes:
        path: Relative to the index's root.
        bytes: Length.
        crc32c: CRC-32C of the content, eight hexadecimal digits.
        chunks: Of a shard, the CRC-32C of its chunks' checksums in the order of the chunks; it ties the chunks, each
            checked when it is first read, to the manifest. None of other files.
    """

    path: str
    bytes: int
    crc32c: str
    chunks: str | None

    @classmethod
    def of(cls, root: Path, path: Path, chunks: str | None = None) -> "FileRecord":
        """Describe a file that is complete."""
        return cls(
            path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, crc32c=checksum(path), chunks=chunks
        )

    def check_length(self, root: Path) -> None:
        """Compare the file's length with the record.

        Raises:
            CorruptStoreError: The file is missing or has another length.
        """
        path = root / self.path
        try:
            found = path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise self._unreadable(path, error) from error
        if found is None:
            raise CorruptStoreError(field=path, expected=f"{self.bytes:,} bytes", found="no file", remedy=REMEDY)
        if found != self.bytes:
            raise CorruptStoreError(field=path, expected=f"{self.bytes:,} bytes", found=f"{found:,}", remedy=REMEDY)

    def check_content(self, root: Path) -> None:
        """Compare the file's length and checksum with the record; reads the whole file.

        Raises:
            CorruptStoreError: They differ, or the file cannot be read.
            ResourceError: The system lets no more files be opened.
        """
        self.check_length(root)
        path = root / self.path
        try:
            found = checksum(path)
        except OSError as error:
            raise self._unreadable(path, error) from error
        self._compare(path, found)

    def read(self, root: Path) -> builtins.bytes:
        """The file's content, compared with the record.

        Raises:
            CorruptStoreError: It differs, or the file cannot be read.
            ResourceError: The system lets no more files be opened.
        """
        self.check_length(root)
        path = root / self.path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self._unreadable(path, error) from error
        self._compare(path, f"{google_crc32c.value(content):08x}")
        return content

    def _unreadable(self, path: Path, error: OSError) -> CorruptStoreError:
        check_shortage(error, path)
        return CorruptStoreError(field=path, expected="a readable file", found=error.strerror, remedy=REMEDY)

    def _compare(self, path: Path, found: str) -> None:
        if found != self.crc32c:
            raise CorruptStoreError(field=path, expected=f"CRC-32C {self.crc32c}", found=found, remedy=REMEDY)

    def check_once(self, root: Path) -> None:
        """Compare the file as `check_content` does, unless this process has and the file was not touched since.

        Versions share files, and a service opens one version after the other.

        Raises:
            CorruptStoreError: See `check_content`.
            ResourceError: The system lets no more files be opened.
        """
        self.check_length(root)
        path = root / self.path
        status, began = path.stat(), time.time_ns()
        times = status.st_mtime_ns, status.st_ctime_ns
        identity = status.st_dev, status.st_ino, status.st_size, *times, self.crc32c
        if _checked.get(str(path)) == identity:
            return
        self.check_content(root)
        if began - max(times) > _SETTLED:
            _checked[str(path)] = identity


_checked: dict[str, tuple[int | str, ...]] = {}
"""The file at each path that this process compared with its checksum: its identity, and the checksum."""

_SETTLED = 2 * 10**9
"""Nanoseconds after its last change from when on every later change of a file gives it another time."""


def encode_json(content: dict[str, Any]) -> bytes:
    """Write a JSON object with its checksum."""
    body = json.dumps(content, indent=1, ensure_ascii=False).encode().removesuffix(b"\n}")
    return body + _seal(body)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Publish a JSON object with its checksum."""
    publish(path, lambda partial: _write(partial, encode_json(content)))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object and check it.

    Raises:
        CorruptStoreError: The file is missing, altered, or holds something else.
    """
    content, data = read_plain(path)
    body, mark, _ = data.rpartition(_MARK)
    if not mark or data != body + _seal(body):
        raise CorruptStoreError(
            field=path, expected="JSON that ends with its checksum", found="none that fits", remedy=REMEDY
        )
    del content["crc32c"]
    return content


def read_plain(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read a JSON object of whatever origin; return it and the file's bytes.

    Raises:
        CorruptStoreError: The file is missing or holds something else.
    """
    try:
        data = path.read_bytes()
        content = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError):
            check_shortage(error, path)
        raise CorruptStoreError(field=path, expected="a JSON file", found=error, remedy=REMEDY) from error
    if not isinstance(content, dict):
        raise CorruptStoreError(
            field=path, expected="a JSON object", found=f"a {type(content).__name__}", remedy=REMEDY
        )
    return content, data


def _seal(body: bytes) -> bytes:
    return _MARK + f'{google_crc32c.value(body):08x}"\n}}\n'.encode()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
