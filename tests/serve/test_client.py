"""The client gives what the library gives, and the command prints it."""

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from gindex import FailedQuery, Query
from gindex.client import AsyncClient, Client
from gindex.errors import (
    AccessError,
    ConfigError,
    FilterError,
    OverloadedError,
    QueryError,
    ServiceError,
    UnavailableError,
    UnknownDocumentError,
    UnknownIndexError,
    message_of,
)

PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.fixture
def client(served):
    with Client(f"{served.url}/index") as client:
        yield client


def same(found, expected):
    return replace(found, timing_ms=expected.timing_ms) == expected and found.version == expected.version


@pytest.mark.parametrize(
    "settings", [{}, {"both": True, "layers": True}, {"dedupe": 0.9, "hits": "document"}, {"where": "number < 50"}]
)
def test_results_are_the_librarys(client, index, settings):
    assert same(client.search(PROMPT, COMPLETION, k=3, **settings), index.search(PROMPT, COMPLETION, k=3, **settings))


def test_many_vectors_and_explanations(client, index):
    queries = [Query(prompt=f"{PROMPT} {n}", id=str(n)) for n in range(40)]  # more than one request takes
    found = client.search_many(queries, k=2)
    assert [result.query for result in found] == queries
    vectors = np.random.default_rng(0).standard_normal((40, 512)).astype(np.float32)
    expected = index.search_vectors(vectors, k=3)
    assert all(same(*pair) for pair in zip(client.search_vectors(vectors, k=3), expected, strict=True))
    explained, local = client.explain("d3", PROMPT), index.explain("d3", PROMPT)
    assert explained.influence == pytest.approx(local.influence) and explained.query == local.query
    assert [t.text for p in explained.parts for t in p.tokens] == [t.text for p in local.parts for t in p.tokens]
    assert client.document("d3")["text"] == index.document("d3").text and client.info()["dimension"] == 512


def test_one_bad_query_of_many(client, index):
    queries = [Query(prompt=f"{PROMPT} {n}", id=str(n)) for n in range(40)]
    queries[35] = Query(prompt="the", completion="", id="bad")
    found, expected = client.search_each(queries, k=2), index.search_each(queries, k=2)
    assert [outcome.query for outcome in found] == queries
    for outcome, local in zip(found, expected, strict=True):
        assert type(outcome) is type(local)
        if outcome.query.id == "bad":
            assert isinstance(outcome, FailedQuery) and isinstance(outcome.error, QueryError)
            assert str(local.error) in str(outcome.error)
        else:
            assert same(outcome, local)
    with pytest.raises(QueryError, match="query bad: expected a completion"):
        client.search_many(queries, k=2)
    long = "the stack " * 100
    assert client.search(long, COMPLETION).notes == index.search(long, COMPLETION).notes
    assert client.explain("d3", long).notes == index.explain("d3", long).notes
    for call in (client.search, lambda *a, **more: client.explain("d3", *a, **more)):
        with pytest.raises(QueryError, match="expected at most 64 tokens"):
            call(long, long_queries="refuse")


def test_the_asynchronous_client(served, index):
    async def ask():
        async with AsyncClient(served.url, index="index") as client:
            results = await asyncio.gather(*(client.search(PROMPT, COMPLETION, k=n) for n in range(1, 5)))
            assert (await client.document("d3"))["metadata"] == {"number": 3}
            assert (await client.explain("d3", PROMPT)).document_id == "d3"
            assert (await client.info())["name"] == "index"
            _, failed = await client.search_each([Query(prompt=PROMPT), Query(prompt="", id="bad")])
            assert isinstance(failed, FailedQuery) and failed.query.id == "bad"
            return results

    for n, found in enumerate(asyncio.run(ask()), start=1):
        assert [hit.document_id for hit in found.hits] == [
            h.document_id for h in index.search(PROMPT, COMPLETION, k=n).hits
        ]


def test_changes(start, folder):
    running = start(f"index={folder}", writable=True)
    with Client(f"{running.url}/index") as client:
        assert client.add([{"id": "n", "text": "the stack and the heap", "number": 1}]) == 2
        assert client.document("n")["version"] == 2 and client.delete("n") == 3


def test_errors_are_the_librarys(client, served, start, built):
    with pytest.raises(FilterError, match="where, position 9") as refused:
        client.search(PROMPT, where="number >")
    assert refused.value.field.endswith(": where, position 9") and refused.value.field.startswith("http://")
    assert str(refused.value) == message_of(**refused.value.parts()) and refused.value.found
    with pytest.raises(UnknownDocumentError):
        client.explain("nothing", PROMPT)
    with pytest.raises(UnknownIndexError), Client(f"{served.url}/other") as other:
        other.search(PROMPT)
    with pytest.raises(UnavailableError, match="check the address"), Client("http://127.0.0.1:9/x", retries=0) as none:
        none.search(PROMPT)
    for url in ("127.0.0.1/x", "http://127.0.0.1", "ftp://x/y"):
        with pytest.raises(ConfigError, match="expected http://"):
            Client(url)
    guarded = start(f"index={built}", keys="reader read " + "r" * 16, prompts=False)
    with pytest.raises(AccessError), Client(f"{guarded.url}/index") as client:
        client.info()
    with Client(f"{guarded.url}/index", api_key="r" * 16) as client:
        assert client.info()["ready"]


@pytest.mark.parametrize(
    ("refusals", "status", "error"), [(2, 429, None), (2, 503, None), (9, 429, OverloadedError), (1, 418, ServiceError)]
)
def test_retries(refusals, status, error):
    """A server that refuses a few times, then answers."""
    asked = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            refuse = len(asked) <= refusals
            kind = {429: "OverloadedError", 503: "UnavailableError"}.get(status, "Unheard")
            body = json.dumps({"type": f"urn:gindex:{kind}", "detail": "x"} if refuse else {"name": "i"}).encode()
            self.send_response(status if refuse else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_port}/i", retries=3) as client:
            if error:
                with pytest.raises(error):
                    client.info()
            else:
                assert client.info() == {"name": "i"}
        server.shutdown()
    assert len(asked) == (1 if status == 418 else 4 if error else 3)


def test_the_command_prints_the_same(run, served, built):
    arguments = [PROMPT, "--completion", COMPLETION, "-k", 3, "--both", "--layers"]
    local, remote = (run("search", where, *arguments) for where in (built, f"{served.url}/index"))
    assert remote.exit_code == 0, remote.output

    def untimed(text):
        return re.sub(r"[\d.]+ ms", "ms", text)

    assert untimed(remote.stdout) == untimed(local.stdout)
    local, remote = (json.loads(run("search", w, *arguments, "--json").stdout) for w in (built, f"{served.url}/index"))
    assert local.pop("timing_ms").keys() == remote.pop("timing_ms").keys() and local == remote
    failed = run("search", f"{served.url}/other", PROMPT)
    assert failed.exit_code == 9 and failed.stderr.startswith("gindex: http://")


def test_the_client_loads_no_torch():
    code = "import gindex.client, sys; sys.exit(bool({'torch', 'faiss', 'transformers', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
