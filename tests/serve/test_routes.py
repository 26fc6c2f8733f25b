"""The routes: the library's answers over HTTP, and clear refusals."""

import base64
import io
import json
import socket
from dataclasses import fields

import numpy as np
import pytest

from gindex.errors import PARTS, message_of
from gindex.options import default_of
from gindex.search.result import result_record
from gindex.search_options import SearchOptions
from gindex.serve.schema import AllOptions

PROMPT, COMPLETION = "the compiler race", " bug the stack"
NPY = {"Content-Type": "application/x-npy"}


def npy(array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def refused(response, status: int, *words: str):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    parts = {name: content[name] for name in PARTS if name in content}
    assert content["status"] == status and content.keys() - parts.keys() == {"type", "title", "status", "detail"}
    assert all(parts.values()) and (
        content["detail"] == message_of(**parts) or not parts.keys() & {"expected", "found"}
    )
    assert all(word in content["detail"] for word in words), content
    assert "/" not in content["detail"].replace("application/", "").replace("/v1/indexes", "")  # no path of ours
    return content


@pytest.mark.parametrize(
    "settings",
    [
        {"k": 4},
        {"k": 3, "negative": True},
        {"k": 3, "both": True, "layers": True, "where": "number < 100"},
        {"k": 3, "hits": "document", "document_score": "sum", "dedupe": 0.9, "normalise": "unit"},
        {"k": 3, "exact": True, "candidates": 8},
        {"k": 3, "words": "rank", "words_text": "parser"},
        {"k": 3, "scan": True, "shortlist": 50},
    ],
)
def test_answers_are_the_librarys(served, index, settings):
    answer = served.search({"prompt": PROMPT, "completion": COMPLETION, **settings}).json()
    expected = json.loads(json.dumps(result_record(index.search(PROMPT, COMPLETION, **settings))))
    assert answer.pop("index") == "index" and answer.pop("version") == 1
    assert answer.pop("timing_ms").keys() == expected.pop("timing_ms").keys()
    assert answer == expected


def test_a_batch_answers_each_query(served, index):
    texts = [PROMPT, "the heap", "a parser token"]
    body = {"queries": [{"prompt": text, "id": str(n)} for n, text in enumerate(texts)], "k": 2}
    answer = served.http.post("/v1/indexes/index/search/batch", json=body)
    assert answer.headers["gindex-version"] == "1"
    for text, result in zip(texts, answer.json()["results"], strict=True):
        expected = index.search(text, k=2).hits
        assert [hit["document_id"] for hit in result["hits"]] == [hit.document_id for hit in expected]


def test_a_bad_query_of_a_batch_stands_in_its_place(served, index):
    queries = [{"prompt": PROMPT, "id": "a"}, {"prompt": "", "id": "b"}, {"prompt": "the heap", "id": "c"}]
    answer = served.http.post("/v1/indexes/index/search/batch", json={"queries": queries, "k": 2, "histogram": True})
    assert answer.status_code == 200
    first, failed, last = answer.json()["results"]
    assert failed == {
        "query": {"id": "b", "prompt": "", "completion": None},
        "error": {
            "type": "urn:gindex:QueryError",
            "detail": "query b: expected a token to predict after the first, found 0 in all; give a longer prompt",
            "field": "query b",
            "expected": "a token to predict after the first",
            "found": "0 in all",
            "remedy": "give a longer prompt",
        },
    }
    for result, prompt in ((first, PROMPT), (last, "the heap")):
        assert [h["document_id"] for h in result["hits"]] == [h.document_id for h in index.search(prompt, k=2).hits]
        assert result["histogram"]["parts"] == index.manifest.documents["parts"]
    refused(served.search(queries[1]), 422, "a token to predict")


def test_notes_are_told(served, index):
    long = {"prompt": "the stack " * 100 + PROMPT, "completion": COMPLETION}
    expected = index.search(long["prompt"], COMPLETION).notes
    assert expected and served.search(long).json()["notes"] == list(expected)
    explained = served.http.post("/v1/indexes/index/explain", json={"document_id": "d3", **long}).json()
    assert explained["notes"] == list(expected)
    refused(
        served.http.post("/v1/indexes/index/explain", json={"document_id": "d3", **long, "long_queries": "refuse"}),
        422,
        "expected at most 64 tokens",
    )
    assert "notes" not in served.search({"prompt": PROMPT}).json()


def test_vectors_in_both_forms(served, index):
    vectors = np.random.default_rng(0).standard_normal((3, 512)).astype(np.float32)
    expected = [[hit.document_id for hit in r.hits] for r in index.search_vectors(vectors, k=3)]

    def ids(result):
        return [hit["document_id"] for hit in result["hits"]]

    text = base64.b64encode(vectors[0].tobytes()).decode()
    assert ids(served.search({"vector": text, "k": 3}).json()) == expected[0]
    one = served.http.post("/v1/indexes/index/search?k=3", content=npy(vectors[0]), headers=NPY)
    assert ids(one.json()) == expected[0]
    many = served.http.post("/v1/indexes/index/search/batch?k=3", content=npy(vectors.astype("f8")), headers=NPY)
    assert [ids(result) for result in many.json()["results"]] == expected


def test_histogram_counts_every_part(served, index):
    spread = served.search({"prompt": PROMPT, "histogram": True, "k": 1, "both": True}).json()
    shape, top, bottom = spread["histogram"], spread["hits"][0], spread["negative_hits"][0]
    assert sum(shape["counts"]) == shape["parts"] == index.manifest.documents["parts"] and not shape["sampled"]
    assert shape["positive"][0] == [1, pytest.approx(top["score"], rel=1e-3)]
    assert shape["negative"][0] == [1, pytest.approx(-bottom["score"], rel=1e-3)]
    assert len(shape["edges"]) == len(shape["counts"]) + 1


def test_explain_and_documents(served, index):
    body = {"document_id": "d3", "prompt": PROMPT, "completion": COMPLETION}
    answer = served.http.post("/v1/indexes/index/explain", json=body).json()
    expected = index.explain("d3", PROMPT, COMPLETION)
    assert answer["influence"] == pytest.approx(expected.influence)
    assert answer["groups"] == pytest.approx(expected.groups)
    document = served.http.get("/v1/indexes/index/documents/d3").json()
    assert document["text"] == index.document("d3").text and document["metadata"] == {"number": 3}
    info = served.http.get("/v1/indexes").json()["indexes"][0]
    assert info["coverage"] == index.info()["coverage"]
    assert info["dimension"] == 512 and info["recall"].keys() == {"at_10", "at_100"} and info["ready"]


def test_operation(served):
    assert served.http.get("/livez").json() == {"status": "alive"}
    assert served.http.get("/readyz").json() == {"status": "ready", "indexes": {"index": True}}
    assert "gindex" in served.http.get("/version").json()
    served.search({"prompt": PROMPT})
    text = served.http.get("/metrics").text
    for line in (
        'gindex_index_version{index="index"} 1.0',
        'gindex_index_recall{at="10",index="index"}',
        'gindex_stage_seconds_count{stage="gradient"}',
        "gindex_queue_depth 0.0",
        'gindex_requests_total{method="POST",route="/v1/indexes/{name}/search",status="200"}',
    ):
        assert line in text, line


def test_options_are_those_of_the_library():
    for each in fields(SearchOptions):
        assert AllOptions.model_fields[each.name].default == default_of(SearchOptions, each.name)
    assert AllOptions.model_fields.keys() - {each.name for each in fields(SearchOptions)} == {"histogram"}


DEEP = '{"prompt":' + "[" * 100_000


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, ["either a prompt or a vector"]),
        ({"prompt": "a", "vector": "AAAA"}, 422, ["either a prompt or a vector"]),
        ({"vector": "AAAA"}, 422, ["512 numbers", "3 bytes"]),
        ({"vector": "not base64!"}, 422, ["base64"]),
        ({"vector": base64.b64encode(np.full(512, np.nan, "<f4").tobytes()).decode()}, 422, ["finite"]),
        ({"prompt": "a b", "k": 10**9}, 422, ["k: expected at most 1000"]),
        ({"prompt": "a b", "k": 10**40}, 422, ["k"]),
        ({"prompt": "a b", "k": 0}, 422, ["k"]),
        ({"prompt": "a b", "k": "5"}, 422, ["k"]),
        ({"prompt": "a b", "colour": 1}, 422, ["colour"]),
        ({"prompt": "a b", "where": "number >"}, 422, ["where, position 9"]),
        ({"prompt": "a b", "where": "colour = 1"}, 422, ["a field of the documents (number)"]),
        ({"prompt": "a b", "normalise": "l2"}, 422, ["normalise"]),
        ({"prompt": "a b", "negative": True, "both": True}, 422, ["negative"]),
        ({"prompt": "a"}, 422, ["a token to predict"]),
        ({"prompt": "the stack " * 100, "long_queries": "refuse"}, 422, ["tokens"]),
        ({"prompt": "the", "completion": " stack" * 100}, 422, ["in the completion"]),
        ({"prompt": "a b", "long_queries": "guess"}, 422, ["one of cut, refuse"]),
        ({"prompt": "a b \ud800"}, None, []),
        (DEEP, 400, ["JSON"]),
        ('{"prompt": "a b"', 400, ["JSON"]),
        (b'{"prompt": "\xff\xfe"}', 400, ["JSON"]),
        ("[]", 422, ["body"]),
        ("null", 422, ["body"]),
    ],
)  # fmt: skip
def test_bad_bodies(served, body, status, words):
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    headers = {"Content-Type": "application/json"}
    response = served.http.post("/v1/indexes/index/search", content=content, headers=headers)
    refused(response, status or response.status_code, *words)
    assert 400 <= response.status_code < 500
    assert served.search({"prompt": PROMPT}).status_code == 200


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("name", ["other", "..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "index%00", "%ff"])
def test_names_are_looked_up_and_nothing_else(served, method, name):
    url = f"/v1/indexes/{name}/documents/d1" if method == "get" else f"/v1/indexes/{name}/search"
    with socket.create_connection(("127.0.0.1", served.port)) as raw:  # clients tidy such paths up
        body = '{"prompt": "a b"}'
        raw.sendall(
            f"{method.upper()} {url} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split(b" ", 2)[1] == b"404" and b"urn:gindex:" in answer


@pytest.mark.parametrize("document", ["nothing", "../../etc/passwd", "%2e%2e%2fmanifests", "x" * 5000, "a\x00b"])
def test_unknown_documents(served, document):
    from urllib.parse import quote

    refused(served.http.get(f"/v1/indexes/index/documents/{quote(document, safe='')}"), 404)


def test_parts_of_a_problem(served):
    content = refused(
        served.http.post("/v1/indexes/index/search", json={"prompt": PROMPT, "dedupe": 0.5, "where": "a >"}), 422
    )
    assert content["field"] == "where, position 4" and content["expected"] and content["found"]
    content = refused(served.http.get("/v1/indexes/index/documents/nothing"), 404)
    assert {name: content.get(name) for name in PARTS} == {
        "field": None,
        "expected": "the id of a document",
        "found": "none of that name",
        "remedy": "check the id",
    }


def test_media_types_paths_and_methods(served):
    refused(served.http.post("/v1/indexes/index/search", content="x", headers={"Content-Type": "text/plain"}), 415)
    refused(served.http.post("/v1/indexes/index/search", content="x"), 415)
    refused(served.http.get("/v1/indexes/index/search"), 405)
    refused(served.http.get("/nowhere"), 404)
    refused(served.http.get("/page/..%2fapp.py"), 404)
    refused(served.http.post("/v1/indexes/index/documents", json={"documents": []}), 403, "read-only")
    refused(served.http.delete("/v1/indexes/index/documents/d1"), 403, "read-only")
    refused(served.http.post("/v1/indexes/index/search?k=x", content=npy(np.ones(512)), headers=NPY), 422, "k")
    refused(served.http.post("/v1/indexes/index/search?k=1&k=2", content=npy(np.ones(512)), headers=NPY), 422, "k: ")
    refused(served.http.post("/v1/indexes/index/search?kk=1", content=npy(np.ones(512)), headers=NPY), 422, "kk")
    refused(served.http.post("/v1/indexes/index/search", content=npy(np.ones((2, 512))), headers=NPY), 422, "one")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("search", '{"prompt": "the stack", "where": "number = 1", "where": "number = 2"}'),
        ("search/batch", '{"queries": [{"prompt": "the stack", "where": 1, "where": 2}]}'),
        ("explain", '{"document_id": "d1", "prompt": "the stack", "where": 1, "where": 2}'),
        ("document", '{"document_id": "d1", "where": 1, "where": 2}'),
    ],
)
def test_equal_keys_are_refused_in_every_body(served, route, body):
    """The last one would win without a word."""
    headers = {"Content-Type": "application/json"}
    refused(served.http.post(f"/v1/indexes/index/{route}", content=body, headers=headers), 422, "'where' twice in one")


def test_large_bodies(served):
    most = served.service.config.max_body
    declared = served.http.post(
        "/v1/indexes/index/search", content=b"x" * (most + 1), headers={"Content-Type": "application/json"}
    )
    refused(declared, 413)

    def blocks():
        for _ in range(most // 2**20 + 2):
            yield b"x" * 2**20

    undeclared = served.http.post(
        "/v1/indexes/index/search", content=blocks(), headers={"Content-Type": "application/json"}
    )
    refused(undeclared, 413)


def test_a_refined_search_is_the_librarys_and_is_bounded(served, index):
    refined = {"refine": "cg", "refine_parts": 6, "refine_settings": {"iterations": 2}}
    settings = {"k": 3, "exact": True, "candidates": 8, **refined}
    answer = served.search({"prompt": PROMPT, "completion": COMPLETION, **settings}).json()
    expected = json.loads(json.dumps(result_record(index.search(PROMPT, COMPLETION, **settings))))
    assert answer["hits"] == expected["hits"]
    assert answer["refinement"].pop("seconds") > 0 and expected["refinement"].pop("seconds") > 0
    assert answer["refinement"] == expected["refinement"] and answer["refinement"]["iterations"] == 2
    for changes, words in [
        ({"exact": False, "candidates": 300}, "refine: expected `exact`"),
        ({"refine": "newton"}, "expected one of cg, lissa"),
        ({"refine_parts": None}, "refine_parts: expected from 1 to 1000 over HTTP"),
        ({"refine_parts": 5000}, "refine_parts: expected at most 1000"),
        ({"refine_settings": {"iterations": 0.5}}, "refine_iterations: expected int, found 0.5"),
        ({"refine_settings": {"scale": 1}}, "refine_scale: expected a setting of cg: iterations, tolerance"),
        ({"refine": None, "refine_parts": 64}, "refine_settings: expected `refine` beside it"),
    ]:
        refused(served.search({"prompt": PROMPT, **settings, **changes}), 422, words)
