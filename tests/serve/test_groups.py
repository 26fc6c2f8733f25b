"""Groups over HTTP are those of the library, bounded, and part of what OpenAPI says; old names are told apart."""

import numpy as np
import pytest

from gindex import GradientIndex
from gindex.client import Client
from gindex.errors import ConfigError, FilterError
from gindex.queries.query import Query


@pytest.fixture(scope="module")
def running(start, sourced):
    return start(f"index={sourced}", max_k=60)


@pytest.fixture
def client(running):
    with Client(f"{running.url}/index") as client:
        yield client


@pytest.mark.parametrize("field", ["source", "tags", "origin", "mark", "number"])
def test_groups_are_those_of_the_library(client, sourced, field):
    queries = [Query(prompt="the stack", completion=" heap"), Query(prompt="the compiler bug")]
    settings = {"k": 3, "group_by": field, "groups": 7, "where": "number < 120", "normalise": "relatif"}
    found = client.search_many(queries, **settings)
    expected = GradientIndex.open(sourced, device="cpu").search_many(queries, **settings)
    assert [result.groups for result in found] == [result.groups for result in expected]
    assert all(result.groups is not None and len(result.groups.groups) <= 7 for result in found)


def test_vectors_have_groups_too(client, sourced):
    index = GradientIndex.open(sourced, device="cpu")
    vectors = index.snapshot.vectors.decoded(np.array([3, 9]))
    (one, other) = client.search_vectors(vectors.numpy(), k=1, group_by="source")
    assert one.groups.documents == other.groups.documents == len(index.ids()) and one.groups != other.groups


def test_the_answer_is_plain_and_bounded(running, sourced):
    documents = len(GradientIndex.open(sourced, device="cpu").ids())
    answer = running.search({"prompt": "the stack", "k": 1, "group_by": "number", "groups": 4}).json()
    groups = answer["groups"]
    assert list(groups) == ["field", "documents", "values", "groups", "others"]
    assert (groups["field"], groups["documents"], groups["values"]) == ("number", documents, documents)
    assert len(groups["groups"]) == 4 and groups["others"]["values"] == documents - 4
    for group in groups["groups"]:
        assert group["documents"] == 1 and group["sum"] == group["mean"] and group["mean_interval"] is None
    assert "groups" not in running.search({"prompt": "the stack", "k": 1}).json()


def test_what_is_refused(running, client):
    with pytest.raises(FilterError, match="group_by: expected a field of the documents"):
        client.search("the stack", group_by="colour")
    with pytest.raises(ConfigError, match="groups: expected at most 60"):
        client.search("the stack", group_by="source", groups=61)
    answer = running.search({"prompt": "the stack", "hits": "document", "group_score": "sum"})
    assert answer.status_code == 422 and "it is called `document_score` now" in answer.json()["detail"]
    answer = running.search({"prompt": "the stack", "group_by": "document"})
    assert answer.status_code == 422 and "`hits` document says what a hit is" in answer.json()["detail"]


def test_openapi_describes_groups(running):
    schemas = running.http.get("/openapi.json").json()["components"]["schemas"]
    assert {"group_by", "groups", "hits", "document_score"} <= schemas["SearchBody"]["properties"].keys()
    assert "groups" in schemas["SearchAnswer"]["properties"]
    assert {"value", "documents", "sum", "mean", "sum_interval", "mean_interval"} == schemas["Group"][
        "properties"
    ].keys()
    assert all(each.get("description") for each in schemas["Group"]["properties"].values())
