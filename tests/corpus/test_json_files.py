"""JSON: lines, arrays and single records; equal keys, and values that JSON cannot hold, are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from gindex.config import CorpusConfig
from gindex.corpus import json_files
from gindex.corpus.readers import read_corpus
from gindex.errors import CorpusError

RECORDS: list[dict[str, Any]] = [
    {"text": "one", "id": "a", "deep": {"list": [1, {"x": None}], "quoted": '"]},{"'}},
    {"text": "zwei \u00e4\u2028 \U0001f600", "n": 2},
    {"text": "three", "long": "x" * 500},
]
EXPECTED = [("a", "one"), ("c.json:2", RECORDS[1]["text"]), ("c.json:3", "three")]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "c.json"


def read(path: Path) -> list[tuple[str, str]]:
    return [(d.document_id, d.text) for d in read_corpus([str(path)], CorpusConfig())]


def error_of(path: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("piece", [16, 17, 18, 19, 64, 1 << 16])
@pytest.mark.parametrize("escaped", [True, False])
def test_every_form_holds_the_same_records(path, monkeypatch, piece, escaped):
    """However the text falls into pieces, which may cut a character in two."""
    monkeypatch.setattr(json_files, "_PIECE", piece)
    lines = [json.dumps(record, ensure_ascii=escaped) for record in RECORDS]
    pretty = json.dumps(RECORDS, ensure_ascii=escaped, indent=2)
    for begin in (b"", b"\xef\xbb\xbf", b"\n \t\r\n"):
        for text in ("\n".join(lines), f"[{', '.join(lines)}]", pretty, pretty + "\n\n"):
            path.write_bytes(begin + text.encode())
            assert read(path) == EXPECTED


def test_one_record_over_several_lines(path):
    path.write_text(json.dumps(RECORDS[1], indent=4))
    assert read(path) == [("c.json:1", RECORDS[1]["text"])]
    path.write_text("\n".join(json.dumps(record, indent=4) for record in RECORDS))
    assert read(path) == EXPECTED


def test_first_line_longer_than_what_is_looked_at(path, monkeypatch):
    monkeypatch.setattr(json_files, "_PIECE", 64)
    lines = [json.dumps(record) for record in RECORDS[::-1]]
    path.write_text("\n".join(lines))
    assert [text for _, text in read(path)] == [record["text"] for record in RECORDS[::-1]]


@pytest.mark.parametrize(
    ("text", "record", "found"),
    [
        ('[{"text": "one"}, {"text": "two"', 2, "delimiter"),
        ('[{"text": "one"}, ', 2, "Expecting value"),
        ('[{"text": "one"}', 2, "its end too early"),
        ('[{"text": "one"} {"text": "two"}]', 2, "'{' in the place of , or ]"),
        ('[{"text": "one"},]', 2, "Expecting value"),
        ('[{"text": "one"}] {"text": "two"}', 2, "'{' after the end of the array"),
        ('{"text":\n "one"}\n}', 2, "Expecting value"),
        ("[" * 100_000, 1, "recursion"),
    ],
)
def test_malformed(path, text, record, found):
    path.write_text(text)
    message = error_of(path)
    assert f"{path}: record {record}: expected JSON objects, found malformed JSON (" in message and found in message


@pytest.mark.parametrize(("text", "found"), [('["one"]', "a string"), ("[[]]", "an array"), ("[null]", "null")])
def test_elements_that_are_no_records(path, text, found):
    path.write_text(text)
    assert f"{path}: record 1: expected a record that is an object, found {found}" in error_of(path)


def test_bytes_that_are_not_utf8_are_named_in_an_array(path):
    head = b'[{"text": "one"},\n {"text": "'
    path.write_bytes(head + b'\xfftwo"}]')
    assert f"found byte 0xff at byte offset {len(head)};" in error_of(path)
    path.write_bytes(head + b"\xc3")
    assert f"found byte 0xc3 at byte offset {len(head)};" in error_of(path)


@pytest.mark.parametrize("name", ["c.jsonl", "c.json", "array.json"])
@pytest.mark.parametrize(
    ("record", "key"),
    [
        ('{"text": "first", "text": "two"}', "text"),
        ('{"text": "two", "id": 1, "id": 2}', "id"),
        ('{"text": "two", "a": {"b": [{"k": 1, "k": 1}]}}', "k"),
        (r'{"text": "two", "A": 1, "\u0041": 2}', "A"),
    ],
)
def test_equal_keys_are_refused_by_name(tmp_path, name, record, key):
    path = tmp_path / name
    both = '{"text": "one"}', record
    path.write_text(f"[{', '.join(both)}]" if name == "array.json" else "\n".join(both))
    place = f"{path}: record 2" if name == "array.json" else f"{path}:2"
    assert f"{place}: expected keys that differ in every object, found {key!r} twice in one; " in error_of(path)


def test_same_key_in_different_objects_is_no_matter(path):
    path.write_text('[{"text": "one", "k": {"k": {"k": 1}}, "l": [{"k": 1}, {"k": 2}]}]')
    (document,) = read_corpus([str(path)], CorpusConfig())
    assert document.metadata == {"k": {"k": {"k": 1}}, "l": [{"k": 1}, {"k": 2}]}


@pytest.mark.parametrize(
    ("field", "named"),
    [
        (r'"author": "bad \ud83d tail"', "in the field 'author'"),
        (r'"deep": {"list": ["\udc00"]}', "in the field 'deep'"),
        (r'"deep": {"k\udc00": 1}', "in the field 'deep'"),
        (r'"k\udc00": 1', r"the name of a field ('k\udc00')"),
    ],
)
def test_half_a_surrogate_pair_in_metadata_names_the_field(path, field, named):
    path.write_text('{"text": "one"}\n{"text": "two", ' + field + "}\n")
    message = error_of(path)
    assert f"{path}:2: expected " in message and named in message and "half a surrogate pair" in message


def test_whole_surrogate_pairs_are_characters(path):
    path.write_text(r'{"text": "one \ud83d\ude00", "id": "\ud83d\ude00", "k\ud83d\ude00": "\ud83d\ude00"}')
    (document,) = read_corpus([str(path)], CorpusConfig())
    assert document.document_id == "\U0001f600" and document.metadata == {"k\U0001f600": "\U0001f600"}


def test_numbers_that_json_cannot_write(path):
    path.write_text('{"text": "one", "nan": NaN, "large": 123456789012345678901234567890}')
    (document,) = read_corpus([str(path)], CorpusConfig())
    assert document.metadata == {"nan": None, "large": 123456789012345678901234567890}
    for number, said in (("Infinity", "Infinity"), ("-Infinity", "-Infinity"), ("1e999", "Infinity")):
        path.write_text('{"text": "one", "n": [' + number + "]}")
        (document,) = read_corpus([str(path)], CorpusConfig())
        assert document.metadata == {"n": [said]}


def test_nul_is_a_character(path):
    path.write_text(r'{"text": "one\u0000two", "id": "a\u0000b", "m": "\u0000"}')
    (document,) = read_corpus([str(path)], CorpusConfig())
    assert (document.document_id, document.text, document.metadata) == ("a\0b", "one\0two", {"m": "\0"})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["c.txt", "c.jsonl", "c.json", "c.csv"])
def test_other_encodings_are_refused(tmp_path, encoding, name):
    """Without its mark, UTF-16 of ASCII text is UTF-8 too: of characters with NULs between them."""
    path = tmp_path / name
    path.write_bytes('{"text": "one two three"}'.encode(encoding))
    assert f"{path}" in error_of(path)
