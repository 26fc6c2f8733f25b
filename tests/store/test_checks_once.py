"""A file is compared with its checksum once in a process, and again whenever it may be another."""

import os
import time
from pathlib import Path

import pytest

from gindex.errors import CorruptStoreError
from gindex.store import files
from gindex.store.files import FileRecord

CONTENT = b"content"


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """A file whose last change lies back far enough."""
    monkeypatch.setattr(files, "_SETTLED", 0)
    (tmp_path / "file").write_bytes(CONTENT)
    time.sleep(0.02)  # a tick of the kernel's clock for times of files takes up to 10 ms
    return tmp_path / "file"


def test_a_file_that_nobody_touched_is_not_read_again(path, monkeypatch):
    record = FileRecord.of(path.parent, path)
    record.check_once(path.parent)
    monkeypatch.setattr(files, "checksum", lambda _path: pytest.fail("read again"))
    record.check_once(path.parent)


@pytest.mark.parametrize("back", [False, True])
def test_a_changed_file_is_found(path, back):
    record, before = FileRecord.of(path.parent, path), path.stat()
    record.check_once(path.parent)
    path.write_bytes(CONTENT.upper())
    if back:  # the time of its content put back leaves that of the change
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(CorruptStoreError, match="CRC-32C"):
        record.check_once(path.parent)


def test_another_file_in_its_place_is_found(path):
    record, other = FileRecord.of(path.parent, path), path.with_name("other")
    record.check_once(path.parent)
    other.write_bytes(CONTENT.upper())
    other.replace(path)
    with pytest.raises(CorruptStoreError, match="CRC-32C"):
        record.check_once(path.parent)


def test_a_record_with_another_checksum_is_compared_by_itself(path):
    record = FileRecord.of(path.parent, path)
    record.check_once(path.parent)
    with pytest.raises(CorruptStoreError, match="CRC-32C 00000000"):
        FileRecord(path=record.path, bytes=record.bytes, crc32c="00000000", chunks=None).check_once(path.parent)


def test_a_file_that_was_just_written_is_compared_every_time(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    record = FileRecord.of(tmp_path, path)
    record.check_once(tmp_path)
    path.write_bytes(CONTENT.upper())
    with pytest.raises(CorruptStoreError, match="CRC-32C"):
        record.check_once(tmp_path)
