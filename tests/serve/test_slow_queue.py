"""Slow work beside searches: turnstile, places in the queue, progress, cancelling, and answers that stay the same."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import httpx2
import pytest

from gindex import GradientIndex
from gindex.client import AsyncClient, Client
from gindex.errors import FilterError, OverloadedError
from gindex.progress import announce, pausing
from gindex.serve.jobs import AbandonedError

BODY = {"prompt": "the compiler race", "completion": " bug", "k": 3}
EXACT = BODY | {"exact": True, "candidates": 12}
LINES = {"Accept": "application/x-ndjson"}
STEP = 0.01


def counted(service, name: str, **labels) -> float:
    return service.metrics.registry.get_sample_value(name, labels) or 0.0


def hold(service) -> threading.Event:
    """Keep the turn of the device until the event is set."""
    release, held = threading.Event(), threading.Event()
    service.batcher.call(lambda: (held.set(), release.wait(60)))
    held.wait(10)
    return release


@pytest.fixture
def slow(start, built, monkeypatch):
    """A service whose exact searches take 60 s of steps; `steps` holds how many were taken."""
    running = start(f"index={built}", slow_queue=2)
    twin, steps = running.service.indexes["index"].current.twin, []

    def work(encoded, options, progress):
        with progress.phase("exact influence", 6000, "parts") as phase:
            for number in range(6000):
                time.sleep(STEP)
                steps.append(number)
                phase.advance()

    monkeypatch.setattr(twin, "search_encoded", work)
    running.steps = steps
    return running


class Exact:
    """An exact search by hand, whose connection can be closed at any time."""

    def __init__(self, port: int) -> None:
        body = json.dumps(EXACT)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.sendall(
            f"POST /v1/indexes/index/search HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        self.file = self.socket.makefile("rb")

    def line(self) -> dict:
        """The next line that is JSON."""
        while not (line := self.file.readline()).startswith(b"{"):
            assert line, "the connection was closed"
        return json.loads(line)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda index: index.search(BODY["prompt"], BODY["completion"], k=5, exact=True, candidates=20),
        lambda index: index.explain("d3", BODY["prompt"], BODY["completion"]),
        lambda index: index.search(
            "the heap", k=5, exact=True, candidates=20, refine="cg", refine_parts=8, refine_settings={"iterations": 2}
        ),
    ],
    ids=["exact", "explain", "refine"],
)
def test_wherever_slow_work_stands_still_a_search_runs_and_both_answer_as_alone(built, ask):
    """To the bit: every stop of a pass, forward and backward, has a whole pass of the other set of modules within."""
    index = GradientIndex.open(built, device="cpu")
    alone, expected = ask(index), index.search("the stack", k=4)
    found, stops, stretches = [], [], []
    with ThreadPoolExecutor(1) as other:

        class Between:
            @staticmethod
            def pause():
                stops.append(len(stops))
                if len(stops) % 3 == 1:  # a third of the stops shows it as well
                    found.append(other.submit(index.search, "the stack", k=4).result(60))

            @staticmethod
            @contextmanager
            def alone():
                stretches.append(len(stops))
                yield
                assert stretches.pop() == len(stops)

        with pausing(Between()):
            between = ask(index.twin)

    def untimed(result):
        if not hasattr(result, "timing_ms"):
            return result
        refinement = result.refinement and replace(result.refinement, seconds=0.0)
        return replace(result, timing_ms=alone.timing_ms, refinement=refinement)

    assert untimed(between) == untimed(alone)
    assert len(stops) > 2 * len(index.model.tracked.table.layers)  # forward and backward in every layer, at least
    for result in found:
        assert replace(result, timing_ms=expected.timing_ms) == expected


@pytest.mark.parametrize("stop", [0, 3, 20, 40, 60])
def test_slow_work_ended_at_any_stop_leaves_nothing_behind(built, stop):
    """As where the client goes: forward, backward, in the head; the next answer is as the first."""
    index = GradientIndex.open(built, device="cpu")
    expected, left = index.twin.search("the heap", k=5, exact=True, candidates=20), [stop]

    class Ending:
        @staticmethod
        def pause():
            left[0] -= 1
            if left[0] < 0:
                raise AbandonedError

    with pytest.raises(AbandonedError), pausing(Ending()):
        index.twin.search("the heap", k=5, exact=True, candidates=20)
    again = index.twin.search("the heap", k=5, exact=True, candidates=20)
    assert replace(again, timing_ms=expected.timing_ms) == expected


def test_a_twin_has_the_same_weights_in_other_modules(built):
    index = GradientIndex.open(built, device="cpu")
    own, twin = index.model.tracked, index.twin.model.tracked
    assert {id(p) for p in own.loaded.model.parameters()} == {id(p) for p in twin.loaded.model.parameters()}
    assert not {id(m) for m in own.loaded.model.modules()} & {id(m) for m in twin.loaded.model.modules()}
    assert [layer.module for layer in twin.table.layers] == [
        twin.loaded.model.get_submodule(layer.name) for layer in own.table.layers
    ]


def test_searches_go_on_beside_slow_work(slow, until, monkeypatch):
    batcher, steps = slow.service.batcher, []
    run = batcher._runner.batch

    def counting(jobs):
        before = len(slow.steps)
        time.sleep(5 * STEP)  # steps enough to be seen, if slow work went on
        run(jobs)
        steps.append(len(slow.steps) - before)

    monkeypatch.setattr(batcher._runner, "batch", counting)
    exact = Exact(slow.port)
    until(lambda: slow.steps)
    for number in range(10):
        assert slow.search(BODY).status_code == 200
        until(lambda seen=number: len(steps) > seen)
    assert all(ended <= 1 for ended in steps)  # the step that ran ends, and no other begins
    ended = len(slow.steps)
    until(lambda: len(slow.steps) > ended)  # slow work goes on after the batches
    assert exact.line()["state"] in ("waiting", "running")
    exact.close()


def test_places_progress_and_a_full_queue(slow, until):
    first = Exact(slow.port)
    until(lambda: slow.steps)
    second, third = Exact(slow.port), None
    assert second.line() == {"state": "waiting", "place": 1}
    third = Exact(slow.port)
    assert third.line() == {"state": "waiting", "place": 2}
    assert counted(slow.service, "gindex_slow_queue_depth") == 2
    refused = slow.search(EXACT)
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert "at most 2 slow searches" in refused.json()["detail"]
    assert slow.search(EXACT, headers=LINES).status_code == 429  # before the first line
    with pytest.raises(OverloadedError), Client(f"{slow.url}/index", retries=0) as client:
        client.explain("d3", "the heap")
    told = [first.line() for _ in range(4)]
    running = [line for line in told if line.get("phase")]
    assert running and all(line["total"] == 6000 and line["unit"] == "parts" for line in running)
    assert [line["done"] for line in running] == sorted({line["done"] for line in running})
    second.close()  # gives its place up at once
    while third.line() != {"state": "waiting", "place": 1}:
        pass
    fourth = Exact(slow.port)
    assert fourth.line() == {"state": "waiting", "place": 2}
    for each in (first, third, fourth):
        each.close()


def test_closing_the_connection_cancels(slow, until):
    first, gone = Exact(slow.port), counted(slow.service, "gindex_dropped_total", reason="gone")
    until(lambda: slow.steps)
    first.close()
    until(lambda: counted(slow.service, "gindex_dropped_total", reason="gone") == gone + 1)
    taken = len(slow.steps)
    time.sleep(5 * STEP)
    assert len(slow.steps) == taken < 6000
    with pytest.raises(httpx2.ReadTimeout):  # without lines too
        slow.http.post("/v1/indexes/index/search", json=EXACT, timeout=0.2)
    until(lambda: counted(slow.service, "gindex_dropped_total", reason="gone") == gone + 2)


def test_time_in_which_slow_work_stands_still_does_not_run(start, built):
    running = start(f"index={built}", exact_seconds=5.0, search_seconds=5.0)
    release = hold(running.service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(running.search, EXACT)
        time.sleep(0.5)
        release.set()
        assert answer.result(60).status_code == 200


def test_waiting_has_a_limit(start, built):
    running = start(f"index={built}", slow_queue_seconds=0.3)
    release = hold(running.service)
    late = running.search(EXACT)
    assert late.status_code == 504 and "slow_queue" in late.json()["detail"]
    release.set()


@pytest.mark.parametrize("path", ["search", "search/batch", "explain"])
def test_lines_end_in_the_answer_or_the_problem(served, path):
    body = {
        "search": EXACT,
        "search/batch": {key: value for key, value in EXACT.items() if key not in ("prompt", "completion")}
        | {"queries": [{"prompt": "the compiler race"}, {"prompt": "the heap"}]},
        "explain": {"document_id": "d3", "prompt": "the heap"},
    }[path]
    whole = served.http.post(f"/v1/indexes/index/{path}", json=body)
    lines = served.http.post(f"/v1/indexes/index/{path}", json=body, headers=LINES)
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert lines.headers["gindex-version"] == whole.headers["gindex-version"]
    *states, last = map(json.loads, lines.text.splitlines())
    assert last["state"] == "done" and {line["state"] for line in states} <= {"waiting", "running"}

    def untimed(content):
        text = json.dumps(content)
        for result in [content, *content.get("results", [])]:
            result.pop("timing_ms", None)
        return content if text else None

    assert untimed(last["result"]) == untimed(whole.json())
    wrong = body | ({"document_id": "nothing"} if path == "explain" else {"where": "colour = 1"})
    status = served.http.post(f"/v1/indexes/index/{path}", json=wrong)
    told = served.http.post(f"/v1/indexes/index/{path}", json=wrong, headers=LINES)
    assert json.loads(told.text.splitlines()[-1]) == {"state": "failed", "problem": status.json()}


class Seen:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[list] = []

    def phase(self, name, total, unit):
        seen = self

        class Phase:
            def __enter__(self):
                seen.phases.append([name, 0, total, unit])
                return self

            def __exit__(self, *_):
                pass

            def advance(self, steps=1):
                seen.phases[-1][1] += steps

        return Phase()


def test_the_client_tells_of_progress(served, index, until):
    release, seen = hold(served.service), Seen()
    with ThreadPoolExecutor(1) as pool, Client(f"{served.url}/index") as client:
        ahead = [Exact(served.port) for _ in range(2)]  # one that has left the queue, and one in it
        until(lambda: counted(served.service, "gindex_slow_queue_depth") == 1)
        answer = pool.submit(
            client.search, BODY["prompt"], BODY["completion"], k=3, exact=True, candidates=12, progress=seen
        )
        until(lambda: seen.phases)
        release.set()
        found, expected = (
            answer.result(60),
            index.search(BODY["prompt"], BODY["completion"], k=3, exact=True, candidates=12),
        )
        assert replace(found, timing_ms=expected.timing_ms) == expected
        for each in ahead:
            each.close()
        with pytest.raises(FilterError, match="position"):
            client.search("the heap", exact=True, where="number >")
    assert seen.phases[0][0] == "queue" and seen.phases[0][2] == 2
    assert all(done == total for _, done, total, _ in seen.phases[:2])  # told to the end, whatever the lines left out


def test_long_work_is_announced_in_the_lines_and_to_the_client(served, monkeypatch, until):
    """A search that is said to take 75 s, and waits until the client has heard it."""

    class Told(Seen):
        def __init__(self):
            super().__init__()
            self.announced = []

        def expect(self, name, seconds):
            self.announced.append((name, seconds))

    told, twin = Told(), served.service.indexes["index"].current.twin
    search = twin.search_encoded

    def long(encoded, options, progress):
        announce(progress, "exact influence of 9 parts", 75.04)
        with progress.phase("exact influence", 9, "parts"):
            until(lambda: told.announced)
        return search(encoded, options, progress=progress)

    monkeypatch.setattr(twin, "search_encoded", long)
    with Client(f"{served.url}/index") as client:
        assert client.search(BODY["prompt"], BODY["completion"], k=3, exact=True, candidates=12, progress=told).hits
    assert told.announced == [("exact influence of 9 parts", 75.0)]
    answer = served.http.post("/v1/indexes/index/search", json=EXACT, headers=LINES)
    lines = [line for line in map(json.loads, answer.text.splitlines()) if line["state"] == "running"]
    assert all(line.get("expected_s", 75.0) == 75.0 for line in lines)


def test_the_asynchronous_client_reads_lines(served, index):
    import asyncio

    async def ask():
        async with AsyncClient(served.url, index="index") as client:
            exact, explained = await asyncio.gather(
                client.search(BODY["prompt"], k=3, exact=True, candidates=12), client.explain("d3", BODY["prompt"])
            )
            with pytest.raises(FilterError):
                await client.search("the heap", exact=True, where="number >")
            return exact, explained

    exact, explained = asyncio.run(ask())
    expected = index.search(BODY["prompt"], k=3, exact=True, candidates=12)
    assert replace(exact, timing_ms=expected.timing_ms) == expected
    assert explained.influence == pytest.approx(index.explain("d3", BODY["prompt"]).influence)
