"""A published file is whole or absent."""

import subprocess
from pathlib import Path

import google_crc32c
import pytest

from gindex.files import atomic


def listing(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write_half(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError("interrupted")


def test_publish_creates_and_replaces(tmp_path):
    for content in ("old", "new"):
        atomic.publish(tmp_path / "file", lambda path, content=content: path.write_text(content))
        assert listing(tmp_path) == {"file": content}


def test_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError, match="interrupted"):
        atomic.publish(tmp_path / "file", write_half)
    assert listing(tmp_path) == {"file": "old"}


def test_failing_write_of_a_new_file_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="interrupted"):
        atomic.publish(tmp_path / "file", write_half)
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_failing_publication_leaves_the_old_file(tmp_path, monkeypatch, failing):
    def fail(*_args: object) -> None:
        raise OSError(failing)

    (tmp_path / "file").write_text("old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match=failing):
        patch.setattr(atomic.os, failing, fail)
        atomic.publish(tmp_path / "file", lambda path: path.write_text("new"))
    assert listing(tmp_path) == {"file": "old"}


def test_leftover_of_a_killed_write_is_replaced(tmp_path):
    (tmp_path / "file.partial").write_text("half of a longer content")
    atomic.publish(tmp_path / "file", lambda path: path.write_text("new"))
    assert listing(tmp_path) == {"file": "new"}


def test_content_is_synced_before_the_name_and_the_directory_after(tmp_path, monkeypatch):
    seen: list[str] = []
    replace, sync = atomic.os.replace, atomic.sync
    monkeypatch.setattr(atomic, "sync", lambda path: (seen.append(path.name), sync(path)))
    monkeypatch.setattr(atomic.os, "replace", lambda *args: (seen.append("replace"), replace(*args)))
    atomic.publish(tmp_path / "file", lambda path: path.write_text("new"))
    assert seen == ["file.partial", "replace", tmp_path.name]


def test_checksum_spans_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "READ_BYTES", 3)
    (tmp_path / "file").write_bytes(b"123456789")
    # The check value of CRC-32C (Castagnoli) in every catalogue of checksums.
    assert atomic.checksum(tmp_path / "file") == "e3069283" == f"{google_crc32c.value(b'123456789'):08x}"


def test_removing_a_tree_that_is_not_there(tmp_path):
    atomic.remove_tree(tmp_path / "none")
    (tmp_path / "some" / "where").mkdir(parents=True)
    atomic.remove_tree(tmp_path / "some")
    assert subprocess.check_output(["ls", "-A", tmp_path]) == b""
