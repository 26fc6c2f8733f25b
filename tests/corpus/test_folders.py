"""Folders: linked ones are read once, and whatever is left out is told."""

import json
import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gindex.config import CorpusConfig
from gindex.corpus.fingerprints import check_unchanged, fingerprint_sources
from gindex.corpus.readers import read_corpus
from gindex.errors import CorpusChangedError, CorpusError


@pytest.fixture
def read(caplog):
    """Read folders; returns the ids of their documents, and the lines that were told, without the folder's name."""

    def read(*folders: Path) -> tuple[list[str], list[str]]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            ids = [document.document_id for document in read_corpus([str(f) for f in folders], CorpusConfig())]
        return ids, [message.partition(": ")[2] for message in caplog.messages]

    return read


def write(path: Path, text: str, **fields: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"text": text, **fields}) + "\n")
    return path


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def test_linked_folders_and_files_are_read_and_broken_links_told(tmp_path, read):
    corpus, shared = tmp_path / "corpus", tmp_path / "shared"
    write(corpus / "a.jsonl", "direct")
    write(shared / "deep" / "b.jsonl", "linked")
    link(corpus / "sub", "../shared")
    link(corpus / "file.jsonl", "../shared/deep/b.jsonl")
    link(corpus / "broken.jsonl", "/no/such/place.jsonl")
    link(corpus / "itself", "itself")
    assert read(corpus) == (
        ["a.jsonl:1", "file.jsonl:1", "sub/deep/b.jsonl:1"],
        ["left out 2 broken links: broken.jsonl, itself"],
    )


@pytest.mark.parametrize("target", [".", "..", "../..", "b"])
def test_circles_are_told_and_end(tmp_path, read, target):
    corpus = tmp_path / "corpus"
    write(corpus / "a" / "b" / "c.jsonl", "one")
    link(corpus / "a" / "back", target)
    assert read(corpus) == (["a/b/c.jsonl:1"], ["left out 1 link to a folder that is read anyway: a/back"])


def test_a_folder_that_is_linked_twice_is_read_once(tmp_path, read):
    corpus = tmp_path / "corpus"
    write(tmp_path / "shared" / "in" / "c.jsonl", "one")
    link(corpus / "z", "../shared/in")
    link(corpus / "b", "../shared")
    link(corpus / "c", "../shared")
    link(tmp_path / "shared" / "in" / "up", "..")  # a circle among linked folders
    assert read(corpus) == (
        ["b/in/c.jsonl:1"],
        ["left out 3 links to folders that are read anyway: b/in/up, c, z"],
    )


def test_marker_and_hidden_files_are_told(tmp_path, read):
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "part-0.snappy.parquet")
    for name in ("_SUCCESS", ".part-0.snappy.parquet.crc", "_metadata", "_common_metadata", "part-0.crc", "_started_7"):
        (tmp_path / name).touch()
    write(tmp_path / "_temporary" / "0" / "part-1.jsonl", "uncommitted")
    write(tmp_path / "_notes.jsonl", "a document")
    assert read(tmp_path) == (
        ["_notes.jsonl:1", "part-0.snappy.parquet:1"],
        ["left out 7 hidden or marker files: .part-0.snappy.parquet.crc, _SUCCESS, _common_metadata, ..."],
    )


def test_special_files_and_files_without_records_are_told(tmp_path, read):
    write(tmp_path / "a.jsonl", "one")
    os.mkfifo(tmp_path / "pipe")
    link(tmp_path / "null", "/dev/null")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "header.csv").write_text("id,text\n")
    (tmp_path / "none.json").write_text("[]")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "none.parquet")
    assert read(tmp_path) == (["a.jsonl:1"], ["left out 2 special files: null, pipe", *["no record in it"] * 4])


def test_broken_link_by_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    link(tmp_path / "corpora" / "broken", "nowhere")
    with pytest.raises(CorpusError, match=r"corpora/broken: expected a file, .*, found a link that leads nowhere"):
        read_corpus(["corpora/broken"], CorpusConfig())  # not taken for a dataset on the hub


def test_folder_that_cannot_be_read(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", "one")
    write(tmp_path / "closed" / "b.jsonl", "two")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    for call in (read_corpus, lambda sources, _: fingerprint_sources(sources)):
        with pytest.raises(CorpusError, match=r"closed: expected a readable folder, found Permission denied"):
            call([str(tmp_path)], CorpusConfig())


def test_a_versioned_table_is_refused(tmp_path):
    write(tmp_path / "_delta_log" / "0.json", "log")
    write(tmp_path / "part-0.jsonl", "perhaps removed since")
    with pytest.raises(CorpusError, match="found a Delta Lake table"):
        read_corpus([str(tmp_path)], CorpusConfig())


def test_changes_behind_links_are_seen(tmp_path):
    corpus = tmp_path / "corpus"
    path = write(tmp_path / "shared" / "b.jsonl", "linked")
    link(corpus / "sub", "../shared")
    link(corpus / "c.jsonl", "../shared/b.jsonl")
    recorded = fingerprint_sources([str(corpus)])
    assert [item.path for item in recorded] == [str(corpus / "c.jsonl"), str(corpus / "sub" / "b.jsonl")]
    path.write_text('{"text": "other"}\n')
    with pytest.raises(CorpusChangedError, match=r"c\.jsonl"):
        check_unchanged(recorded, fingerprint_sources([str(corpus)]))


# Partitions


def metadata(*sources: object) -> list[dict[str, object]]:
    return [document.metadata for document in read_corpus([str(source) for source in sources], CorpusConfig())]


def partition_error(source: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        metadata(source)
    return str(caught.value)


def test_fields_of_partitions_are_metadata(tmp_path):
    for language in ("de", "en"):
        folder = tmp_path / f"lang={language}" / "year=2020"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"text": ["one"], "n": [1]}), folder / "a.parquet")
    (tmp_path / "lang=de" / "note.txt").write_text("a text")
    write(tmp_path / "lang=a%2Fb%20c" / "b.jsonl", "two")
    write(tmp_path / "lang=__HIVE_DEFAULT_PARTITION__" / "x=y=z" / "c.jsonl", "three")
    assert metadata(tmp_path) == [
        {"lang": None, "x": "y=z"}, {"lang": "a/b c"}, {"lang": "de"}, {"lang": "de", "year": "2020", "n": 1},
        {"lang": "en", "year": "2020", "n": 1},
    ]  # fmt: skip


def test_names_of_partitions_are_of_any_words(tmp_path):
    """As they are escaped by pyarrow, and left by Spark."""
    write(tmp_path / "my%20field=a" / "2nd field=b" / "a.jsonl", "one")
    assert metadata(tmp_path) == [{"my field": "a", "2nd field": "b"}]


def test_partitions_given_by_themselves(tmp_path):
    """As a shell writes out `table/lang=*`, or a file's whole path."""
    outside = tmp_path / "run=5" / "table"
    path = write(outside / "lang=de" / "year=2020" / "a.jsonl", "one")
    assert metadata(path) == metadata(path.parent) == metadata(path.parents[1]) == [{"lang": "de", "year": "2020"}]
    assert metadata(outside) == [{"lang": "de", "year": "2020"}]


def test_partition_and_record(tmp_path):
    path = write(tmp_path / "year=2020" / "lang=de" / "a.jsonl", "one", year=2020, lang="de")
    assert metadata(tmp_path) == [{"year": 2020, "lang": "de"}]  # they agree, and the record's type is kept
    write(path, "one", lang="en")
    message = partition_error(tmp_path)
    assert f"{path}:1: expected 'de' in the field 'lang', as the folder's name says, found 'en'" in message


def test_partition_that_is_not_utf8(tmp_path):
    write(tmp_path / "lang=%FF" / "a.jsonl", "one")
    assert "expected text in the field 'lang' of Unicode characters" in partition_error(tmp_path)


@pytest.mark.parametrize("name", ["text", "id"])
def test_partition_named_as_text_or_id(tmp_path, name):
    path = write(tmp_path / f"{name}=5" / "a.jsonl", "one")
    message = partition_error(tmp_path)
    assert f"{path}:1: expected the field '{name}' in records, found it in the name of a folder" in message
    assert f"`{name}_field`" in message


def test_two_partitions_of_one_name(tmp_path):
    path = write(tmp_path / "lang=de" / "lang=en" / "a.jsonl", "one")
    assert f"{path}: expected one folder for the field 'lang', found two" in partition_error(tmp_path)
