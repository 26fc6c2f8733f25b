"""Arrow's own files: both forms, every value that Parquet's reader takes, and no damage that passes unseen."""

import random
import struct
import tracemalloc
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from gindex.config import CorpusConfig
from gindex.corpus.fingerprints import check_unchanged, fingerprint_sources
from gindex.corpus.readers import read_corpus
from gindex.corpus.records import Document
from gindex.errors import CorpusChangedError, CorpusError

FORMS = {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}
forms = pytest.mark.parametrize("form", FORMS)
TABLE = pa.table({"text": ["one", "two", "three"], "id": [7, 8, None], "tags": [["x"], [], None]})


def content(table: pa.Table, form: str, chunk: int | None = None, **options: Any) -> bytes:
    sink = BytesIO()
    with FORMS[form](sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue()


def read(path: Path) -> list[Document]:
    return list(read_corpus([str(path)], CorpusConfig()))


def error_of(path: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@forms
@pytest.mark.parametrize("name", ["c.arrow", "c.feather", "C.ARROW"])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_both_forms(tmp_path, form, name, compression):
    path = tmp_path / name
    path.write_bytes(content(TABLE.slice(0, 2), form, 1, compression=compression))
    assert read(path) == [
        Document(document_id="7", text="one", metadata={"tags": ["x"]}),
        Document(document_id="8", text="two", metadata={"tags": []}),
    ]


def test_feather_and_ids_by_number(tmp_path):
    path = tmp_path / "c.feather"
    feather.write_feather(TABLE.drop_columns("id"), path)
    assert [(d.document_id, d.text) for d in read(path)] == [(f"c.feather:{n}", t) for n, t in enumerate(
        ["one", "two", "three"], 1)]  # fmt: skip


@forms
def test_values_are_those_of_parquet(tmp_path, form):
    """Both go one way from the table on; here are a date past Python's, categories, and more records than a batch."""
    count = 600
    far = date(2020, 1, 2).toordinal() - date(1970, 1, 1).toordinal() + 146_097 * 20
    columns = {
        "text": [f"word {n}" for n in range(count)],
        "day": pa.array([far if n == 500 else n for n in range(count)], pa.date32()),
        "kind": pa.array(["a", "b", None] * (count // 3)).dictionary_encode(),
        "of": [{"n": n, "list": [n] * (n % 3)} for n in range(count)],
    }
    table = pa.table(columns)
    (tmp_path / "c.arrow").write_bytes(content(table, form))
    pq.write_table(table, tmp_path / "c.parquet")
    found, expected = read(tmp_path / "c.arrow"), read(tmp_path / "c.parquet")
    assert [(d.text, d.metadata) for d in found] == [(d.text, d.metadata) for d in expected]
    assert len(found) == count and found[500].metadata["day"] == "10020-01-02"


@forms
def test_errors_name_the_record(tmp_path, form):
    path = tmp_path / "c.arrow"
    path.write_bytes(content(pa.table({"text": ["one"] * 300 + ["  "]}), form))
    assert f"{path}: record 301: expected text, found an empty or blank one" in error_of(path)
    path.write_bytes(content(pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"]), form))
    assert "found 'text' twice" in error_of(path)


@forms
def test_no_record(tmp_path, form):
    path = tmp_path / "c.arrow"
    path.write_bytes(content(TABLE.slice(0, 0), form))
    assert "expected at least one document" in error_of(path)


@forms
def test_every_shorter_beginning_is_refused(tmp_path, form):
    """A stream that is cut between two batches reads as a whole one for pyarrow."""
    path = tmp_path / "c.arrow"
    whole = content(pa.table({"text": ["one", "two"]}), form, 1)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert error_of(path).startswith(f"{path}: ")


@forms
def test_flipped_bytes_are_refused_or_read(tmp_path, form):
    """300 files with a few wrong bytes each: native code would follow offsets that lead out of their buffers."""
    path, draw = tmp_path / "c.arrow", random.Random(0)
    kinds = {"text": ["one", "two"], "list": [[1], [2, 3]], "kind": pa.array(["a", "b"]).dictionary_encode()}
    whole = content(pa.table(kinds), form, 1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.choice([1, 2, 8])):
            damaged[draw.randrange(len(damaged))] = draw.choice([0, 127, 128, 255])
        path.write_bytes(damaged)
        try:
            read(path)
        except CorpusError:
            refused += 1
    assert refused > 50


def test_offset_out_of_the_text(tmp_path):
    """Read as it is, this string would be 1 MB of memory beyond the file's."""
    path = tmp_path / "c.arrow"
    whole = content(pa.table({"text": ["x" * 777]}), "file")
    offsets = whole.rindex(struct.pack("<2i", 0, 777), 0, whole.index(b"x" * 777))
    path.write_bytes(whole[:offsets] + struct.pack("<2i", 0, 1 << 20) + whole[offsets + 8 :])
    assert f"{path}: expected an Arrow file, found one that cannot be read" in error_of(path)


@forms
def test_text_that_is_not_utf8(tmp_path, form):
    text = pa.StringArray.from_buffers(1, pa.array([0, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffb"))
    (tmp_path / "c.arrow").write_bytes(content(pa.Table.from_arrays([text], ["text"]), form))
    assert "UTF8" in error_of(tmp_path / "c.arrow")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"FEA1 and more", "found Feather of version 1"),
        (b"", "found no end of a stream"),
        (b"ARROW1", "found one that cannot be read"),
        (b"some text", "found no end of a stream: it is something else, or cut short"),
    ],
)
def test_other_content(tmp_path, data, message):
    (tmp_path / "c.feather").write_bytes(data)
    assert message in error_of(tmp_path / "c.feather")


def test_compressed_once_more(tmp_path):
    (tmp_path / "c.arrow.gz").touch()
    assert "expected a file of Arrow as it is, found it compressed once more" in error_of(tmp_path)


@forms
def test_memory_is_that_of_a_batch(tmp_path, form):
    path = tmp_path / "c.arrow"
    path.write_bytes(content(pa.table({"text": ["word " * 2000] * 4096}), form, 64))  # 40 MB
    native, most = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    for _ in read_corpus([str(path)], CorpusConfig()):
        most = max(most, pa.total_allocated_bytes() - native)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most + python < 8_000_000


def test_shards_of_datasets(tmp_path, caplog):
    """A saved dataset is read by `datasets`; within a larger folder its shards are, as they are."""
    dataset = datasets.Dataset.from_dict({"text": ["one", "two", "three"]})
    dataset.save_to_disk(tmp_path / "all" / "saved", num_shards=2)
    (tmp_path / "all" / "a.txt").write_text("zero")
    assert [document.text for document in read(tmp_path / "all")] == ["zero", "one", "two", "three"]
    assert "left out what `datasets` writes beside its files: saved/dataset_info.json, saved/state.json" in caplog.text


def test_folder_of_mixed_files(tmp_path, caplog):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "lines"}\n')
    pq.write_table(pa.table({"text": ["parquet"]}), folder / "b.parquet")
    (folder / "c.csv").write_text("text\ncomma\n")
    (folder / "d.txt").write_text("plain")
    (folder / "e.arrow").write_bytes(content(pa.table({"text": ["arrow"]}), "stream"))
    feather.write_feather(pa.table({"text": ["feather"]}), folder / "f.feather")
    (folder / ".hidden").touch()
    texts = ["lines", "parquet", "comma", "plain", "arrow", "feather"]
    (folder / "g.tsv.gz").write_bytes(pa.compress(b"text\ngzip\n", "gzip", asbytes=True))
    assert [document.text for document in read(folder)] == [*texts, "gzip"]
    assert "left out 1 hidden or marker file: .hidden" in caplog.text


def test_change_of_a_file_is_seen(tmp_path):
    path = tmp_path / "c.arrow"
    path.write_bytes(content(TABLE, "file"))
    recorded = fingerprint_sources([str(path)])
    path.write_bytes(content(TABLE, "stream"))
    with pytest.raises(CorpusChangedError):
        check_unchanged(recorded, fingerprint_sources([str(path)]))
