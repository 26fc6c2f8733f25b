"""The example corpus that the repository ships is what its page says."""

import json
import re
from pathlib import Path

import pytest

JARGON = Path(__file__).resolve().parents[2] / "examples" / "jargon"
REQUIRED = {"id", "text", "headword", "letter"}


@pytest.fixture(scope="module")
def documents():
    return [json.loads(line) for line in (JARGON / "lexicon.jsonl").read_text(encoding="utf-8").splitlines()]


def test_as_many_documents_as_documented(documents):
    assert len(documents) >= 200
    assert f"holds {len(documents)} entries" in (JARGON / "README.md").read_text(encoding="utf-8")


def test_fields_are_the_documented_ones(documents):
    for document in documents:
        assert set(document) - {"part_of_speech"} == REQUIRED
        assert all(isinstance(value, str) and value for value in document.values())
        assert re.fullmatch(r"[A-Z#]", document["letter"])


@pytest.mark.parametrize("field", ["id", "text", "headword"])
def test_documents_are_distinct(documents, field):
    values = [document[field] for document in documents]
    assert len(set(values)) == len(values)


def test_ids_are_slugs_in_order(documents):
    ids = [document["id"] for document in documents]
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value) for value in ids)


def test_texts_are_clean_single_lines(documents):
    for document in documents:
        text = document["text"]
        assert text.startswith(f"{document['headword']}: ")
        assert not re.search(r"[{}\x00-\x1f\x7f\xa0\xad\ufffd]|  ", text), text
        assert text == text.strip()


@pytest.mark.parametrize("term", ["deadly-embrace", "worm", "byte"])
def test_the_quickstart_asks_for_what_is_there(documents, term):
    assert term in {document["id"] for document in documents}
