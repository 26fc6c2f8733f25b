"""Queries of every form over HTTP: the same answers as the library gives, and bounds on what is asked."""

import json

import pytest

from gindex import Query
from gindex.client import Client
from gindex.errors import QueryError
from gindex.queries.query import asked_record
from gindex.search.result import result_record

TALK = [
    {"role": "user", "content": "the compiler race"},
    {"role": "assistant", "content": "a bug the stack"},
    {"role": "user", "content": "the heap"},
    {"role": "assistant", "content": "a lock and a page"},
]
SHORT = {"prompt": "the", "completion": " race"}
TOOL = {"type": "function", "function": {"name": "compile", "parameters": {"type": "object", "properties": {}}}}
QUERIES = {
    "completion": Query(prompt="the compiler race", completion=" bug the stack", id="q"),
    "contrast": Query(prompt="the compiler race", completion=" bug", contrast=" page the disk"),
    "span": Query(prompt="the compiler", completion=" race bug the stack", span=(6, 9), weight=-2.0),
    "messages": Query(messages=TALK),
    "all turns": Query(messages=TALK, loss="assistant", tools=[TOOL]),
    "a turn": Query(messages=TALK, turn=2, span=(2, 5)),
    "other answer": Query(messages=TALK, contrast="a cache"),
    "other conversation": Query(messages=TALK, contrast=[TALK[0], TALK[3]]),
    "tokens": Query(input_ids=[80, 90, 100, 110], labels=[-100, -100, 100, 110]),
    "weights": Query(input_ids=[80, 90, 100, 110], loss_weights=[0, 0.5, 0, -1.0]),
    "preference": Query(prompt="the page", chosen=" file", rejected=" disk race", beta=0.3),
    "preference of turns": Query(
        chosen=TALK[:2], rejected=[TALK[0], TALK[3]], ref_chosen_logp=-1, ref_rejected_logp=-2
    ),
    "set": Query(
        queries=[Query(prompt="the stack", completion=" heap", weight=2.0, id="1"), Query(messages=TALK)],
        aggregate="mean",
    ),
}


@pytest.fixture(scope="module")
def served(start, chat_built):
    return start(f"chat={chat_built}", max_queries=8)


@pytest.fixture
def client(served):
    with Client(f"{served.url}/chat") as client:
        yield client


def without_times(record) -> dict:
    return {name: value for name, value in json.loads(json.dumps(record)).items() if name != "timing_ms"}


@pytest.mark.parametrize("form", QUERIES)
def test_every_form_is_answered_as_by_the_library(served, client, chat_index, form):
    query = QUERIES[form]
    expected = chat_index.search(query, k=4)
    answer = served.search({**asked_record(query), "k": 4}, name="chat").json()
    assert without_times(answer) == without_times(result_record(expected)) | {"index": "chat", "version": 1}
    found = client.search(query, k=4)
    assert found.query == query and found.hits == expected.hits and found.tokens == expected.tokens
    exact = client.search(query, k=2, exact=True, candidates=9)
    assert exact.hits == chat_index.search(query, k=2, exact=True, candidates=9).hits


@pytest.mark.parametrize("form", ["contrast", "span", "other answer", "set", "preference"])
def test_every_form_is_explained_as_by_the_library(client, chat_index, form):
    found = client.explain("d3", QUERIES[form])
    assert found == chat_index.explain("d3", QUERIES[form])


def test_a_batch_of_all_forms_is_as_each_alone(client, chat_index):
    found = client.search_many(list(QUERIES.values())[:4], k=3)
    for result, query in zip(found, QUERIES.values(), strict=False):
        alone = chat_index.search(query, k=3)
        assert [hit.document_id for hit in result.hits] == [hit.document_id for hit in alone.hits]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": TALK, "prompt": "a"}, "the fields of one form"),
        ({"messages": TALK[:3]}, "ends with the assistant's answer"),
        ({"messages": [{"role": "user"}, TALK[1]]}, "turn 1 (user): expected content"),
        ({"messages": []}, "messages"),
        ({"messages": TALK * 60}, "messages"),
        ({"messages": [TALK[0], {"role": "assistant", "content": "x" * 200_001}]}, "200000 characters"),
        ({"messages": TALK, "turn": 3}, "turn"),
        ({"messages": TALK, "span": [0, 1, 2]}, "span"),
        ({"messages": TALK, "span": [4, 2]}, "span"),
        ({"prompt": "the", "completion": " race", "contrast": " race"}, "another text"),
        ({"prompt": "the", "completion": " race", "contrast": ""}, "contrast: expected a completion with at least one"),
        ({"prompt": "the", "completion": " race", "weight": 0}, "other than zero"),
        ({"input_ids": [1, 2], "labels": [1, 2, 3]}, "as many values"),
        ({"input_ids": [1, 100_000]}, "tokens of the model"),
        ({"input_ids": [-1, 2]}, "token ids"),
        ({"chosen": "a"}, "rejected"),
        ({"queries": [SHORT] * 9, "aggregate": "sum"}, "at most 8"),
        ({"queries": [{**SHORT, "contrast": " b"}] * 5, "aggregate": "sum"}, "at most 8"),
        ({"queries": [{"prompt": "the race"}]}, "aggregate"),
        ({"queries": [{"queries": [{"prompt": "the race"}]}], "aggregate": "sum"}, "queries.0.queries"),
        ({"aggregate": "sum"}, "an object with prompt, or with messages"),
        ({"prompt": "the race", "vector": "AAAA"}, "either a prompt or a vector"),
        ({"messages": TALK, "vector": "AAAA"}, "either a prompt or a vector"),
    ],
)  # fmt: skip
def test_bad_queries_are_refused(served, body, words):
    for path, more in (("search", {}), ("explain", {"document_id": "d3"})):
        if "vector" in body and path == "explain":
            continue
        answer = served.http.post(f"/v1/indexes/chat/{path}", json=body | more)
        assert answer.status_code == 422 and words in answer.json()["detail"], answer.text


def test_a_bad_query_of_a_batch_is_told_in_its_place(client):
    good, bad = client.search_each([QUERIES["messages"], Query(messages=TALK[:3], id="bad")], k=2)
    assert good.hits and isinstance(bad.error, QueryError) and bad.query.messages == TALK[:3]


def test_the_openapi_document_describes_the_fields(served):
    schemas = served.http.get("/openapi.json").json()["components"]["schemas"]
    for name in ("SearchBody", "ExplainBody", "QueryBody"):
        properties = schemas[name]["properties"]
        for field in ("messages", "tools", "turn", "contrast", "span", "queries", "aggregate", "input_ids", "chosen"):
            assert properties[field]["description"], (name, field)
    assert schemas["SearchBody"]["properties"]["aggregate"]["enum"] == ["mean", "sum"]
