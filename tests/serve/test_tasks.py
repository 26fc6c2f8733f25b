"""Indexes of other tasks over HTTP: the same answers as the library gives, labels and pairs included."""

import json

import pytest

from gindex import BuildConfig, CorpusConfig, CurvatureConfig, GradientIndex, ModelConfig, Query, VectorConfig
from gindex.client import Client
from gindex.errors import QueryError
from gindex.search.result import result_record
from tests.support.task_models import TASK_MODELS, WORDS


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """An index of a classifier of pairs."""
    folder = tmp_path_factory.mktemp("classifier")
    next(of for of in TASK_MODELS if of.name == "BERT, one class").save(folder / "model")
    records = [
        {"id": f"d{n}", "text": f"the {word} a", "pair": WORDS[-n], "label": n % 3} for n, word in enumerate(WORDS)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    config = BuildConfig(
        model=ModelConfig(name=str(folder / "model"), device="cpu"),
        corpus=CorpusConfig(pair_field="pair"),
        curvature=CurvatureConfig(fit_documents=None),
        vectors=VectorConfig(dimension=256, rank_fraction=1.0),
    )
    GradientIndex.build([str(folder / "corpus.jsonl")], folder / "index", config)
    return folder / "index"


QUERIES = {
    "a name": Query(prompt="the stack", pair="heap", label="good"),
    "a number": Query(prompt="the stack", pair="heap", label=2, contrast="bad"),
    "its own": Query(prompt="the stack", pair="heap"),
    "a completion": Query(prompt="the stack", completion="neither"),
}


def test_answers_are_those_of_the_library(classifier, start):
    service, index = start(classifier), GradientIndex.open(classifier, device="cpu")
    with Client(f"{service.url}/index") as client:
        assert client.info()["task"] == "classification"
        for name, query in QUERIES.items():
            found, expected = client.search(query, k=3), index.search(query, k=3)
            assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in expected.hits]), name
            assert found.notes == expected.notes
            assert result_record(found)["query"] == result_record(expected)["query"]
            assert found.hits[0].text.startswith("[") and " [and] " in found.hits[0].text
        explained = client.explain("d1", QUERIES["a name"])
        assert explained.influence == pytest.approx(index.explain("d1", QUERIES["a name"]).influence, rel=1e-4)
        with pytest.raises(QueryError, match="a label of the model"):
            client.search(Query(prompt="the stack", label="worse"))
        labelled = client.search(QUERIES["a name"], k=20, where="label = 1").hits
        assert labelled and all(hit.metadata["label"] == 1 for hit in labelled)


@pytest.mark.parametrize("label", [{"a": 1}, [["good"]], True, "x" * 2_000_000])
def test_labels_that_are_none(label, classifier, start):
    service = start(classifier)
    answer = service.search({"prompt": "the stack", "label": label})
    assert answer.status_code in (400, 413, 422)
