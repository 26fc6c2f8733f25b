"""Files of queries: every form is read, and what is wrong is named by file and line."""

import json

import pytest

from gindex.errors import QueryError
from gindex.queries.files import read_queries
from gindex.queries.query import Query

MESSAGES = [{"role": "user", "content": "the heap"}, {"role": "assistant", "content": "a lock"}]


def test_queries_of_every_form_are_read_in_their_order(tmp_path):
    records = [
        {"id": "a", "prompt": "the heap", "completion": " is\u2028full"},  # a separator is no end of a line
        {"messages": MESSAGES, "span": "0:4"},
        {"conversations": MESSAGES},
        {"input_ids": [1, 2], "labels": [-100, 2]},
        {"prompt": "the page", "chosen": " file", "rejected": " disk"},
    ]
    path = tmp_path / "queries.jsonl"
    path.write_text("\ufeff\n" + "\n\n".join(json.dumps(record, ensure_ascii=False) for record in records))
    assert read_queries(path) == [
        Query(id="a", prompt="the heap", completion=" is\u2028full"),
        Query(messages=MESSAGES, span=(0, 4)),
        Query(messages=MESSAGES),
        Query(input_ids=[1, 2], labels=[-100, 2]),
        Query(prompt="the page", chosen=" file", rejected=" disk"),
    ]


def test_other_fields_are_refused_unless_they_are_allowed(tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text('{"prompt": "the", "documents": ["d1"]}')
    assert read_queries(path, also=["documents"]) == [Query(prompt="the")]
    with pytest.raises(QueryError, match=r"queries\.jsonl:1: .* found the field documents"):
        read_queries(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n", "expected at least one query"),
        ('{"prompt": "the"}\n\n{', r"queries\.jsonl:3: expected a JSON object"),
        ("[1]", r"queries\.jsonl:1: expected an object with prompt"),
        ('{"id": "a"}', r"queries\.jsonl:1: .* found the fields id"),
    ],
)
def test_what_is_no_file_of_queries_is_refused(tmp_path, content, message):
    path = tmp_path / "queries.jsonl"
    path.write_text(content)
    with pytest.raises(QueryError, match=message):
        read_queries(path)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe\xfa")
    for name in ("none.jsonl", "latin.jsonl", "."):
        with pytest.raises(QueryError, match="expected a file of queries"):
            read_queries(tmp_path / name)
