"""Compressed files: every form is read whole, and whatever is damaged or cut short is refused with its place."""

import bz2
import gzip
import lzma
import random
import re
from pathlib import Path

import pyarrow as pa
import pytest

from gindex.config import CorpusConfig
from gindex.corpus import compression, packages, text_files
from gindex.corpus.compression import decompressed
from gindex.corpus.fingerprints import check_unchanged, fingerprint_sources
from gindex.corpus.readers import read_corpus
from gindex.distribution import install_hint
from gindex.errors import CorpusChangedError, CorpusError, MissingDependencyError

COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}
LINES = b'{"text": "one"}\n{"text": "two"}\n'
# What hardly compresses, so that a cut or a changed byte falls into the data and not into a header.
NOISE = b"".join(b'{"text": "%d"}\n' % number for number in random.Random(0).choices(range(10**9), k=20_000))

forms = pytest.mark.parametrize("form", COMPRESS)


def read(path: Path) -> list[str]:
    return [document.text for document in read_corpus([str(path)], CorpusConfig())]


def error_of(path: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path)
    return str(caught.value)


@forms
@pytest.mark.parametrize("name", ["c.jsonl", "c.ndjson", "c.json", "C.JSONL"])
def test_lines(tmp_path, form, name):
    path = tmp_path / f"{name}.{form}"
    path.write_bytes(COMPRESS[form](LINES))
    assert read(path) == ["one", "two"]


@forms
def test_texts_and_tables(tmp_path, form):
    (tmp_path / f"book.txt.{form}").write_bytes(COMPRESS[form]("Ä\r\nb".encode()))
    (tmp_path / f"c.csv.{form}").write_bytes(COMPRESS[form](b"id,text\n1,one\n"))
    documents = list(read_corpus([str(tmp_path)], CorpusConfig()))
    assert [(d.document_id, d.text) for d in documents] == [(f"book.txt.{form}", "Ä\r\nb"), ("1", "one")]
    (alone,) = read_corpus([str(tmp_path / f"book.txt.{form}")], CorpusConfig())
    assert alone.document_id == "book"


@forms
def test_name_that_does_not_say_that_it_is_compressed(tmp_path, form):
    path = tmp_path / "c.jsonl"
    path.write_bytes(COMPRESS[form](LINES))
    assert read(path) == ["one", "two"]


@forms
def test_several_streams_in_one_file(tmp_path, form):
    path = tmp_path / f"c.jsonl.{form}"
    path.write_bytes(COMPRESS[form](LINES) + COMPRESS[form](b'{"text": "three"}\n') + COMPRESS[form](NOISE))
    with decompressed(path.open("rb"), str(path)) as stream:
        assert stream.read() == LINES + b'{"text": "three"}\n' + NOISE


@pytest.mark.parametrize("form", ["gz", "bz2", "xz"])
def test_zeros_after_the_data_are_padding(tmp_path, form):
    path = tmp_path / f"c.jsonl.{form}"
    path.write_bytes(COMPRESS[form](LINES) + bytes(512))
    assert read(path) == ["one", "two"]


@forms
def test_what_is_cut_short_is_refused(tmp_path, form):
    path = tmp_path / f"c.jsonl.{form}"
    whole = COMPRESS[form](NOISE)
    for keep in (len(whole) - 1, len(whole) // 2, 11):
        path.write_bytes(whole[:keep])
        message = error_of(path)
        assert f"{path}: expected a readable file of whole {form} data, found it damaged past byte " in message


@forms
def test_what_follows_the_data_is_refused(tmp_path, form):
    path = tmp_path / f"c.jsonl.{form}"
    path.write_bytes(COMPRESS[form](LINES) + b"and more")
    assert f"whole {form} data, found it damaged" in error_of(path)


@pytest.mark.parametrize("form", ["gz", "bz2", "xz"])  # zstd's checksum is optional
def test_damage_within_is_refused(tmp_path, form):
    path = tmp_path / f"c.jsonl.{form}"
    whole = bytearray(COMPRESS[form](NOISE))
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)
    # What is damaged may first show as bytes that are no JSON, before the checksum at the end tells it.
    assert str(path) in error_of(path)


@forms
def test_names_that_say_too_much(tmp_path, form):
    path = tmp_path / f"c.jsonl.{form}"
    path.write_bytes(b"")
    assert f"{path}: expected compressed data, found an empty file" in error_of(path)
    path.write_bytes(LINES)
    assert f"whole {form} data, found it damaged past byte 0" in error_of(path)
    path = tmp_path / f"c.parquet.{form}"
    path.touch()
    assert f"{path}: expected a file of Parquet as it is, found it compressed once more" in error_of(path)


@pytest.mark.parametrize("name", ["c.tar", "c.tar.gz", "c.tgz", "c.zip", "C.ZIP", "c.7z", "c.jsonl.lz4"])
def test_archives_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"plain ASCII, as a tar file can be")
    assert f"{tmp_path / name}: expected a file of documents, found an archive" in error_of(tmp_path)


@forms
def test_memory_is_bounded_by_a_record(tmp_path, form, monkeypatch):
    """A line that never ends is refused once it is longer than a record can be, whatever the file expands to."""
    path = tmp_path / f"c.jsonl.{form}"
    path.write_bytes(COMPRESS[form](b"0" * 50_000_000))
    monkeypatch.setattr(text_files, "LONGEST_RECORD", 1_000_000)
    taken = []
    read_into = compression._Content.readinto
    monkeypatch.setattr(
        compression._Content, "readinto", lambda self, buffer: taken.append(read_into(self, buffer)) or taken[-1]
    )
    assert "expected records of at most 1,000,000 bytes, found a longer one" in error_of(path)
    # A record, what is looked ahead, and as much again where a decompressor gives more than it was asked for.
    assert sum(taken) < 4_500_000
    assert "at most 1,000,000 bytes" in error_of(_renamed(path, f"c.txt.{form}"))
    assert "at most 1,000,000 bytes" in error_of(_renamed(tmp_path / f"c.txt.{form}", f"c.json.{form}"))


def _renamed(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def test_zstd_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "c.jsonl.zst"
    path.write_bytes(COMPRESS["zst"](LINES))

    def absent(module):
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(packages, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=re.escape(install_hint("corpora"))):
        read(path)
    for form in ("gz", "bz2", "xz"):  # a plain install reads these
        other = tmp_path / f"c.jsonl.{form}"
        other.write_bytes(COMPRESS[form](LINES))
        assert read(other) == ["one", "two"]


def test_a_changed_compressed_file_is_told(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(LINES))
    recorded = fingerprint_sources([str(path)])
    path.write_bytes(gzip.compress(LINES.replace(b"two", b"six")))
    with pytest.raises(CorpusChangedError, match=r"c\.jsonl\.gz"):
        check_unchanged(recorded, fingerprint_sources([str(path)]))
