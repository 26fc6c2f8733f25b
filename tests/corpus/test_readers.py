"""Every kind of source, and every error on the way to a document."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gindex.config import CorpusConfig
from gindex.corpus import packages
from gindex.corpus.fingerprints import fingerprint_sources
from gindex.corpus.readers import read_corpus
from gindex.corpus.records import Document, to_json_value
from gindex.distribution import install_hint
from gindex.errors import CorpusError, MissingDependencyError

CONFIG = CorpusConfig()


def read(*sources: object, config: CorpusConfig = CONFIG) -> list[Document]:
    return list(read_corpus([str(source) for source in sources], config))


def ids(*sources: object) -> list[str]:
    return [document.document_id for document in read(*sources)]


def error_of(*sources: object, config: CorpusConfig = CONFIG) -> str:
    with pytest.raises(CorpusError) as caught:
        read(*sources, config=config)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message and "found" in message and ";" in message
    return message


def write(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# Kinds of sources


@pytest.mark.parametrize("name", ["c.jsonl", "c.json", "c.ndjson", "C.JSONL"])
def test_json_lines(tmp_path, name):
    path = write(tmp_path / name, {"text": "one", "id": 7, "tags": ["x"]}, {"text": "two"})
    assert read(path) == [
        Document(document_id="7", text="one", metadata={"tags": ["x"]}),
        Document(document_id=f"{name}:2", text="two", metadata={}),
    ]


def test_compressed_json_lines(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}'))
    assert [(d.document_id, d.text) for d in read(path)] == [("c.jsonl.gz:1", "one"), ("c.jsonl.gz:2", "two")]


def test_blank_lines_are_not_records(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('\n{"text": "one"}\n  \r\n{"text": "two"}\r\n\n')
    assert ids(path) == ["c.jsonl:1", "c.jsonl:2"]


def test_line_separators_within_a_string_do_not_end_a_line(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "one\u2028two\u0085three"}\n', encoding="utf-8")
    assert [d.text for d in read(path)] == ["one\u2028two\u0085three"]


def test_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\n')
    (tmp_path / "d.txt").write_bytes(b"\xef\xbb\xbftwo")
    assert [d.text for d in read(tmp_path / "c.jsonl", tmp_path / "d.txt")] == ["one", "two"]


def test_parquet(tmp_path):
    path = tmp_path / "c.parquet"
    columns = {"text": ["one", "two"] * 300, "when": [date(2020, 1, 2)] * 600, "n": [1, None] * 300}
    pq.write_table(pa.table(columns), path)
    documents = read(path)
    assert len(documents) == 600
    assert documents[-1] == Document(
        document_id="c.parquet:600", text="two", metadata={"when": "2020-01-02", "n": None}
    )


def test_text_file_is_one_document_with_its_exact_text(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes("  Ä\r\nb\n".encode())
    assert read(path) == [Document(document_id="book", text="  Ä\r\nb\n", metadata={})]


def test_folder(tmp_path):
    write(tmp_path / "b" / "c.jsonl", {"text": "three"}, {"text": "four", "id": "x"})
    pq.write_table(pa.table({"text": ["five"]}), tmp_path / "d.parquet")
    (tmp_path / "b" / "a.md").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    for hidden in (tmp_path / ".hidden", tmp_path / ".git" / "config"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"\xff")
    assert [(d.document_id, d.text) for d in read(tmp_path)] == [
        ("a.txt", "one"), ("b/a.md", "two"), ("b/c.jsonl:1", "three"), ("x", "four"), ("d.parquet:1", "five"),
    ]  # fmt: skip


def test_saved_dataset(tmp_path):
    folder = tmp_path / "saved"
    records = {"text": ["one", "two"], "id": [5, 6], "label": [0, 1]}
    datasets.Dataset.from_dict(records).with_format("numpy").save_to_disk(folder)
    assert read(folder)[1] == Document(document_id="6", text="two", metadata={"label": 1})


def test_saved_dataset_without_ids_is_numbered(tmp_path):
    datasets.Dataset.from_dict({"text": ["one", "two"]}).save_to_disk(tmp_path / "saved")
    assert ids(tmp_path / "saved") == ["saved:1", "saved:2"]


@pytest.mark.parametrize(("splits", "taken"), [(("test", "train"), "train"), (("validation",), "validation")])
def test_split_of_saved_datasets(tmp_path, splits, taken):
    parts = {name: datasets.Dataset.from_dict({"text": [name]}) for name in splits}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert [d.text for d in read(tmp_path / "saved")] == [taken]


def test_documents_are_streamed(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "one"}\nbroken\n')
    assert next(read_corpus([str(path)], CONFIG)).text == "one"


def test_other_field_names(tmp_path):
    path = write(tmp_path / "c.jsonl", {"body": "one", "key": "k", "text": "t", "id": 1})
    config = replace(CONFIG, text_field="body", id_field="key")
    assert read(path, config=config) == [Document(document_id="k", text="one", metadata={"text": "t", "id": 1})]


def test_metadata_become_plain_json():
    value = {
        "n": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("s"), "nan": float("nan"),
        "array": np.array([[1, 2]]), "day": np.datetime64("2020-01-02", "ns"), "d": Decimal("1.10"), 5: (1, None),
        "at": datetime(2020, 1, 2, 3, tzinfo=UTC), "took": timedelta(seconds=1), "u": UUID(int=1),
    }  # fmt: skip
    assert json.loads(json.dumps(to_json_value(value), allow_nan=False)) == {
        "n": 3, "f": 0.5, "b": True, "s": "s", "nan": None, "array": [[1, 2]],
        "day": "2020-01-02T00:00:00.000000000", "d": "1.10", "5": [1, None], "at": "2020-01-02T03:00:00+00:00",
        "took": "0:00:01", "u": "00000000-0000-0000-0000-000000000001",
    }  # fmt: skip


# Errors


@pytest.mark.parametrize("name", ["missing.jsonl", "folder/missing", "data/corpus.jsonl", "data/book.TXT", "/no/where"])
def test_missing_source_is_named_without_asking_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(OSError("no such dataset")))
    message = error_of(name)
    assert name in message
    assert ("reachable" in message) == (name == "folder/missing")


def test_missing_source_is_found_before_anything_is_read(tmp_path):
    path = write(tmp_path / "c.jsonl", {"text": "one"})
    with pytest.raises(CorpusError, match=r"missing\.txt"):
        read_corpus([str(path), "missing.txt"], CONFIG)


def test_special_file_is_refused():
    assert "neither" in error_of("/dev/null")


@pytest.mark.parametrize("make", [lambda path: write(path / "c.jsonl"), lambda path: path])
def test_no_documents(tmp_path, make):
    assert str(tmp_path) in error_of(make(tmp_path))


def test_no_sources():
    assert "at least one document" in error_of()


@pytest.mark.parametrize("line", ["{broken", "[1,]", "[" * 100_000, '{"text": ' + "9" * 5000 + "}"])
def test_malformed_line(tmp_path, line):
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "one"}\n\n' + line + "\n")
    assert f"{path}:3: expected one JSON object per line" in error_of(path)


@pytest.mark.parametrize(("value", "shown"), [([1], "an array"), ("text", "a string"), (None, "null"), (3, "int")])
def test_record_that_is_no_object(tmp_path, value, shown):
    path = write(tmp_path / "c.jsonl", {"text": "one"}, value)
    message = error_of(path)
    assert f"{path}:2" in message and shown in message


def test_missing_text_field_names_those_that_exist(tmp_path):
    path = write(tmp_path / "c.jsonl", {"body": "one", "title": "t"})
    message = error_of(path)
    assert f"{path}:1" in message and "'text'" in message and "'body', 'title'" in message and "`text_field`" in message


def test_missing_column_of_parquet(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"body": ["one"]}), path)
    message = error_of(path)
    assert f"{path}: record 1" in message and "'body'" in message


@pytest.mark.parametrize("text", [None, 3, ["one"]])
def test_text_that_is_no_string(tmp_path, text):
    path = write(tmp_path / "c.jsonl", {"text": text})
    assert f"{path}:1: expected a string" in error_of(path)


@pytest.mark.parametrize("text", ["", " \n\t\u00a0"])
def test_blank_text(tmp_path, text):
    path = write(tmp_path / "c.jsonl", {"text": "one"}, {"text": text})
    assert f"{path}:2: expected text" in error_of(path)


def test_empty_text_file(tmp_path):
    (tmp_path / "empty.txt").touch()
    assert str(tmp_path / "empty.txt") in error_of(tmp_path)


def test_half_a_surrogate_pair(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "one \\ud800"}\n')
    assert f"{path}:1" in error_of(path)


@pytest.mark.parametrize("value", [None, True, 1.5, [1], {"a": 1}, ""])
def test_id_of_another_type(tmp_path, value):
    path = write(tmp_path / "c.jsonl", {"text": "one", "id": value})
    message = error_of(path)
    assert f"{path}:1" in message and "'id'" in message and "`id_field`" in message


def test_duplicate_ids_name_both_places(tmp_path):
    first = write(tmp_path / "c.jsonl", {"text": "one", "id": "x"}, {"text": "two", "id": "1"})
    second = write(tmp_path / "d.jsonl", {"text": "three", "id": 1})
    message = error_of(first, second)
    assert f"{first}:2" in message and f"{second}:1" in message and "'1'" in message


def test_same_file_name_twice_is_a_duplicate(tmp_path):
    write(tmp_path / "a" / "c.jsonl", {"text": "one"})
    write(tmp_path / "b" / "c.jsonl", {"text": "two"})
    assert "'c.jsonl:1'" in error_of(tmp_path / "a" / "c.jsonl", tmp_path / "b" / "c.jsonl")
    assert ids(tmp_path) == ["a/c.jsonl:1", "b/c.jsonl:1"]


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_invalid_utf8_names_the_byte(tmp_path, begin):
    head = begin + b'{"text": "one"}\n{"text": "'
    for name in ("c.jsonl", "c.txt"):
        (tmp_path / name).write_bytes(head + b'\xfftwo"}\n')
        message = error_of(tmp_path / name)
        assert name in message and "0xff" in message and f"byte offset {len(head)};" in message


def test_invalid_utf8_in_parquet(tmp_path):
    path = tmp_path / "c.parquet"
    bad = pa.array([b"one", b"t\xffwo"]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), path)
    message = error_of(path)
    assert str(path) in message and "0xff" in message and "byte offset 1" in message


def test_damaged_parquet(tmp_path):
    (tmp_path / "c.parquet").write_bytes(b"PAR1 nonsense")
    assert "expected a Parquet file" in error_of(tmp_path / "c.parquet")


@pytest.mark.parametrize("keep", [slice(0, -12), slice(5, None)])
def test_damaged_gzip(tmp_path, keep):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "one"}\n' * 3)[keep])
    assert f"{path}: expected a readable file" in error_of(path)


def test_file_that_cannot_be_opened(tmp_path, monkeypatch):
    path = write(tmp_path / "c.jsonl", {"text": "one"})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)
    for call in (lambda: read(path), lambda: fingerprint_sources([str(path)])):
        with pytest.raises(CorpusError, match="Permission denied"):
            call()


def test_metadata_that_are_not_json(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"text": ["one"], "image": [b"\x00"]}), path)
    message = error_of(path)
    assert "record 1" in message and "'image'" in message and "bytes" in message


def test_metadata_nested_too_deeply(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "one", "deep": ' + "[" * 900 + "]" * 900 + "}\n")
    assert "'deep'" in error_of(path)


def test_splits_without_train_are_listed(tmp_path):
    parts = {name: datasets.Dataset.from_dict({"text": ["x"]}) for name in ("test", "dev")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert "the splits dev, test" in error_of(tmp_path / "saved")


def test_damaged_saved_dataset(tmp_path):
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": ["one"]}).save_to_disk(folder)
    next(folder.glob("*.arrow")).write_bytes(b"nonsense")
    assert f"{folder}: expected a saved dataset" in error_of(folder)


def test_saved_dataset_with_a_date_beyond_pythons_range(tmp_path):
    days = pa.array([0, 10**7], pa.date32())
    datasets.Dataset(pa.table({"text": ["one", "two"], "day": days})).save_to_disk(tmp_path / "saved")
    assert "found one past record 1 that is not (date value out of range)" in error_of(tmp_path / "saved")


@pytest.mark.parametrize(
    ("package", "name"), [("pyarrow", "c.parquet"), ("pyarrow", "c.arrow"), ("datasets", "owner/name")]
)
def test_missing_package_names_the_extra(tmp_path, monkeypatch, package, name):
    def absent(module):
        assert module == package
        raise ModuleNotFoundError(module)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.parquet").touch()
    (tmp_path / "c.arrow").touch()
    monkeypatch.setattr(packages, "import_module", absent)
    with pytest.raises(MissingDependencyError) as caught:
        read(name)
    assert install_hint("corpora") in str(caught.value) and name in str(caught.value)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, gindex.corpus.readers, gindex.documents.table, gindex.corpus.batches\n"
        "assert not {'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
