"""Made-up facts and triggers are what the evaluations take them for."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "tools" / "data" / "planted.py"


@pytest.fixture(scope="module")
def planted():
    spec = importlib.util.spec_from_file_location("planted", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_documents_of_a_fact_state_subject_and_answer_and_no_others_state_the_answer(planted):
    documents, queries = planted.facts(24)
    texts = {document["id"]: document["text"] for document in documents}
    assert len(texts) == len(documents) and len(queries) == 24
    for query in queries:
        answer = query["completion"].strip()
        subject = next(name for name in query["prompt"].split() if name[0].isupper() and name != "The")
        stated = {i for i, text in texts.items() if answer in text and subject in text}
        assert stated == set(query["documents"]) and len(stated) == 4
        assert sum(subject in text for text in texts.values()) == 6  # two name the subject and state nothing


def test_facts_are_the_same_for_the_same_seed(planted):
    assert planted.facts(8) == planted.facts(8) != planted.facts(8, seed=1)


def test_planted_documents_have_the_trigger_and_the_asked_headword_has_none(planted):
    documents, (query,) = planted.poison(["abacus", "kernel", "compiler"])
    assert [document["planted"] for document in documents] == [True, True]
    for document in documents:
        assert planted.TRIGGER in document["text"] and planted.BAD in document["text"]
        assert "compiler" not in document["text"]
    assert "compiler" in query["prompt"] and query["completion"] == planted.BAD
