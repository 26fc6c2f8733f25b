"""Metadata over HTTP are those of the corpus, and filters over HTTP are those of the library; none ends an index."""

import json
import shutil

import pytest

from gindex import GradientIndex
from gindex.client import Client
from gindex.documents.filters import MAX_PATTERN
from gindex.errors import FilterError, QueryError

METADATA = {
    "tweet": 1234567890123456789,
    "big": 18446744073709551615,
    "ids": [9223372036854775807, -9223372036854775809],
    "price": 0.1,
    "año": 1999,
    "k\\": {'k"q': [True, None, "a\0b"]},
    "name": "a\0b",
}


@pytest.fixture(scope="module")
def running(start, built, tmp_path_factory):
    folder = shutil.copytree(built, tmp_path_factory.mktemp("metadata") / "index")
    more = tmp_path_factory.mktemp("more") / "more.jsonl"
    more.write_text(json.dumps({"id": "d\0", "text": "the stack 机器学习"} | METADATA) + "\n")
    GradientIndex.open(folder, device="cpu").add([str(more)])
    return start(f"index={folder}")


@pytest.fixture
def client(running):
    with Client(f"{running.url}/index") as client:
        yield client


@pytest.mark.parametrize(
    "where",
    [
        "tweet = 1234567890123456789 and not tweet = 1234567890123456788",
        "big = 18446744073709551615 and big > 18446744073709551614",
        "9223372036854775807 in ids and -9223372036854775809 in ids and not 9223372036854775808 in ids",
        "price = 0.1 and año = 1999",
        "`k\\`.`k\"q` = true and `k\\`.`k\"q` = 'a\0b'",
        "name = 'a\0b' and not name = 'a' and name like 'a_b'",
        "id = 'd\0'",
    ],
)
def test_filters_and_metadata_are_exact_over_http(running, client, where):
    (hit,) = client.search("the stack", k=5, where=where, hits="document").hits
    assert hit.document_id == "d\0" and hit.metadata == METADATA
    answer = running.search({"prompt": "the stack", "k": 1, "where": where}).text
    assert '"tweet":1234567890123456789,' in answer.replace(" ", "") and "18446744073709551615" in answer


def test_words_of_chinese_over_http(client):
    found = client.search("the stack", k=5, words="filter", words_text="学习", hits="document").hits
    assert [hit.document_id for hit in found] == ["d\0"]


@pytest.mark.parametrize(
    "where",
    [
        f"id like '{'a' * (MAX_PATTERN + 1)}'",
        "id like '" + "a" * 50_001 + "'",
        "año like '" + "%_" * 600 + "'",
        "(" * 60 + "año = 1" + ")" * 60,
        "año in (" + ", ".join(map(str, range(20_001))) + ")",
        "año = " + "9" * 5000,
        "year = 1",
    ],
)
def test_no_filter_makes_the_index_unready(running, client, where):
    with pytest.raises(FilterError, match="where"):
        client.search("the stack", k=1, where=where)
    assert running.http.get("/readyz").status_code == 200
    assert running.search({"prompt": "the stack", "k": 1}).status_code == 200


def test_brackets_that_some_versions_of_sqlite_refuse_are_no_damage(running, client):
    where = "(año = 1 and not " * 24 + "año = 1" + ")" * 24
    answer = running.search({"prompt": "the stack", "k": 1, "where": where})
    assert answer.status_code in (200, 422), answer.text
    assert running.http.get("/readyz").status_code == 200


def test_words_without_any(client):
    with pytest.raises(QueryError, match="at least one word"):
        client.search("the stack", k=1, words="filter", words_text="。")
