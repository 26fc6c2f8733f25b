"""Batching, the queue's end, time limits, and clients that go away."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gindex.search.result import result_record
from gindex.serve.config import ServeConfig
from gindex.serve.engine import LONGEST_WAIT, Engine
from gindex.serve.metrics import Metrics

HEAD = (
    "POST /v1/indexes/index/search HTTP/1.1\r\nHost: localhost\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
)
BODY = {"prompt": "the compiler race", "completion": " bug", "k": 3}


def hold(service) -> threading.Event:
    """Keep the engine's thread busy until the event is set."""
    release, held = threading.Event(), threading.Event()
    service.engine.call(lambda: (held.set(), release.wait(300)))
    assert held.wait(300)
    return release


def counted(service, name: str, **labels) -> float:
    return service.metrics.registry.get_sample_value(name, labels) or 0.0


def test_what_waits_runs_in_one_batch(served, index, until):
    service = served.service
    texts = [f"the {word} race" for word in ("compiler", "kernel", "stack", "heap", "lock", "cache")]
    release = hold(service)
    batches, queries = (counted(service, f"gindex_batch_queries_{what}") for what in ("count", "sum"))
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = [pool.submit(served.search, {"prompt": text, "k": 3}) for text in texts]
        until(lambda: counted(service, "gindex_queue_depth") == len(texts))
        release.set()
        for text, answer in zip(texts, answers, strict=True):
            expected = json.loads(json.dumps(result_record(index.search(text, k=3))))["hits"]
            found = answer.result().json()["hits"]
            assert [hit["document_id"] for hit in found] == [hit["document_id"] for hit in expected]
            # Other batches round otherwise.
            np.testing.assert_allclose([h["score"] for h in found], [h["score"] for h in expected], rtol=1e-3)
    assert counted(service, "gindex_batch_queries_count") == batches + 1
    assert counted(service, "gindex_batch_queries_sum") == queries + len(texts)


def test_a_bad_query_fails_alone(served, until):
    service = served.service
    release = hold(service)
    with ThreadPoolExecutor(3) as pool:
        good = pool.submit(served.search, BODY)
        bad = pool.submit(served.search, {"prompt": "a"})
        wrong = pool.submit(served.search, BODY | {"where": "number >"})
        until(lambda: counted(service, "gindex_queue_depth") == 3)
        release.set()
        assert good.result().status_code == 200
        assert bad.result().status_code == wrong.result().status_code == 422


def test_a_full_queue_refuses(start, built, until):
    running = start(f"index={built}", queue=2)
    release = hold(running.service)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(running.search, BODY) for _ in range(2)]
        until(lambda: counted(running.service, "gindex_queue_depth") == 2)
        refused = running.search(BODY)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert running.http.get("/livez").status_code == 200  # the event loop is free
        release.set()
        assert [answer.result().status_code for answer in waiting] == [200, 200]
    assert counted(running.service, "gindex_dropped_total", reason="full") == 1


def test_stages_have_limits(start, built, monkeypatch):
    running = start(f"index={built}", queue_seconds=1.0, search_seconds=0.5)
    release = hold(running.service)
    late = running.search(BODY)
    assert late.status_code == 504 and "the stage queue" in late.json()["detail"]
    release.set()
    index = running.service.indexes["index"].current
    quick = index.search_encoded
    monkeypatch.setattr(index, "search_encoded", lambda *a, **b: (time.sleep(2), quick(*a, **b))[1])
    slow = running.search(BODY)
    assert slow.status_code == 504 and "the stage search" in slow.json()["detail"]


def test_a_client_that_goes_away_is_dropped(served, until):
    service = served.service
    release, gone = hold(service), counted(service, "gindex_dropped_total", reason="gone")
    queries = counted(service, "gindex_batch_queries_sum")
    body = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(HEAD.format(len(body)).encode() + body)
        until(lambda: counted(service, "gindex_queue_depth") == 1)
    until(
        lambda: counted(
            service, "gindex_requests_total", route="/v1/indexes/{name}/search", method="POST", status="499"
        )
    )
    release.set()
    until(lambda: counted(service, "gindex_dropped_total", reason="gone") == gone + 1)
    assert counted(service, "gindex_batch_queries_sum") == queries


def test_a_slow_body_is_cut_off(start, built):
    running = start(f"index={built}", body_seconds=0.3)
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(HEAD.format(100).encode() + b'{"prompt"')
        client.settimeout(300)
        assert client.recv(65536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "sent", [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow", HEAD.format(2).encode()[:-2]]
)
def test_slow_headers_are_cut_off(start, built, sent):
    running = start(f"index={built}", prompts=False, body_seconds=1.0)
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.settimeout(300)
        if sent:  # a later request is held to it too
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while not received.endswith(b'{"status":"alive"}'):
                received += client.recv(65536)
        client.sendall(sent)
        assert client.recv(65536) == b""  # kept open, this would end in the client's own time-out


def test_batches_that_take_long_let_the_next_wait_longer():
    engine = Engine(ServeConfig(window_ms=2), Metrics())
    for took, window in {0.0: 0.002, 0.005: 0.002, 0.1: 0.01, 5.0: LONGEST_WAIT}.items():
        engine._took = took
        assert engine._window == pytest.approx(window)
    assert Engine(ServeConfig(window_ms=0), Metrics())._window == 0
