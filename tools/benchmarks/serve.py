"""Measure a service against the library, and soak it.

    python tools/benchmarks/serve.py load INDEX [--kinds vectors text] [--clients 1 4 16 32 64] [--seconds 5] [--pin]
    python tools/benchmarks/serve.py beside INDEX [--seconds 20]
    python tools/benchmarks/serve.py soak INDEX [--seconds 600]

`load` starts `gindex serve INDEX` and asks it over loopback from one process, with ready vectors in NumPy's format or
with text. The library's figures are taken in this process before and after, on the same queries: one query at a time,
and in batches of 32. With `--pin` the library and then the service have the first core, one thread each, and the
clients the second, so that neither takes time from the other. `beside` asks one plain search after the other of a
service that has nothing else to do, then beside 1 and 8 callers of exact searches and explanations, and /livez beside 8
connections that send headers without an end: each figure is the median, and idle and busy ones are taken in turn, since
machines have moods. `soak` works on a copy of the index: vectors from eight
clients, a document added or deleted every few seconds, compacted now and then, and a client killed every few seconds.
"""

import argparse
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fleet
import httpx2
import numpy as np

STEP_SECONDS, KILL_SECONDS = 3.0, 4.0
TEXTS = ["A race condition is", "The kernel is", "A byte is", "To hack is", "The compiler is", "A bug is"]
PATH = "/v1/indexes/index/search"
SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def service(folder: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `gindex serve` until the block ends."""
    command = [Path(sys.executable).with_name("gindex"), "serve", f"index={folder}", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = next(line for line in process.stderr if " at http://" in line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    url = line.split(" at ")[1].strip().rstrip("/")
    while httpx2.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.2)
    try:
        yield url, process
    finally:
        process.terminate()
        process.wait()


def requests_of(kind: str, dimension: int, number: int) -> list[bytes]:
    """Queries of one client, ready to be sent."""
    if kind == "text":
        ask = [json.dumps({"prompt": text, "completion": f" {number}"}).encode() for text in TEXTS]
        return [fleet.request(PATH, "application/json", content) for content in ask]
    made = []
    for vector in np.random.default_rng(number).standard_normal((16, dimension)).astype(np.float32):
        out = io.BytesIO()
        np.save(out, vector)
        made.append(fleet.request(PATH, "application/x-npy", out.getvalue()))
    return made


def clients(report: object, core: int | None, port: int, requests: list[list[bytes]], seconds: float) -> None:
    """Run a fleet, for a process of its own."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    report.put(fleet.run(port, requests, seconds))


def measure(url: str, requests: list[list[bytes]], seconds: float, core: int | None = None) -> fleet.Answers:
    """Return what clients in another process saw."""
    report = SPAWN.Queue()
    running = SPAWN.Process(target=clients, args=(report, core, port_of(url), requests, seconds))
    running.start()
    found = report.get()
    running.join()
    assert set(found.statuses) <= {200, 429}, found.statuses
    return found


def port_of(url: str) -> int:
    """Return the port in an address."""
    return int(url.rpartition(":")[2])


def load(folder: Path, counts: list[int], seconds: float, kinds: list[str], pin: bool) -> None:
    """Print the table of loads."""
    if pin:
        os.sched_setaffinity(0, {0})  # before the libraries count their cores; the service inherits it
    from gindex import GradientIndex, Query

    index = GradientIndex.open(folder)
    dimension = index.manifest.projection.dimension
    vectors = np.random.default_rng(0).standard_normal((32, dimension)).astype(np.float32)
    queries = [Query(prompt=TEXTS[n % len(TEXTS)], completion=f" {n}") for n in range(32)]

    def library(kind: str, batch: int) -> list[tuple[float, float]]:
        took = []
        for _ in range(12 if kind == "vectors" else 5):
            start, spent = time.perf_counter(), time.process_time()
            if kind == "vectors":
                index.search_vectors(vectors[:batch])
            else:
                index.search_many(queries[:batch])
            took.append((time.perf_counter() - start, time.process_time() - spent))
        return took[1:]

    before = {(kind, batch): library(kind, batch) for kind in kinds for batch in (1, 32)}
    rows = []
    with service(folder, *([] if "text" in kinds else ["--no-model"])) as (url, process):
        for kind in kinds:
            for count in counts:
                requests = [requests_of(kind, dimension, number) for number in range(count)]
                spent = cpu(process)
                found = measure(url, requests, seconds, core=1 if pin else None)
                total = sum(found.statuses.values())
                costs = [1000 * (cpu(process) - spent) / total, 1000 * found.processor / total]
                points = np.percentile(np.array(found.seconds) * 1000, [50, 90, 99])
                rows.append((kind, count, [*points, *costs], len(found.seconds) / seconds))
    after = {key: library(*key) for key in before}
    print("| queries | library | median, ms | processor, ms a query | a second |\n|---|---|---|---|---|")
    for (kind, batch), took in before.items():
        median, spent = (statistics.median(of) for of in zip(*took, *after[kind, batch], strict=True))
        costs = f"{median * 1000:.1f} | {spent * 1000 / batch:.2f}"
        print(f"| {kind} | {'one' if batch == 1 else batch} at a time | {costs} | {batch / median:.0f} |")
    print("\n| queries | clients | median, ms | 90% | 99% | processor, ms a query | of the client | a second |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, count, numbers, rate in rows:
        shown = [f"{number:.1f}" for number in numbers[:3]] + [f"{number:.2f}" for number in numbers[3:]]
        print(f"| {kind} | {count} | {' | '.join(shown)} | {rate:.0f} |")


EXACT = {"exact": True, "candidates": 50, "k": 10}


def ask_slowly(url: str, number: int, done: object, stop: object) -> None:
    """Ask for exact searches and explanations until told to stop, for a process of its own."""
    with httpx2.Client(base_url=url, timeout=None, trust_env=False) as http:
        turn = number
        while not stop.is_set():
            turn += 1
            query = {"prompt": TEXTS[turn % len(TEXTS)], "completion": f" {number}"}
            if turn % 4:
                answer = http.post(PATH, json=query | EXACT)
            else:
                found = http.post(PATH, json=query | {"k": 1}).json()["hits"][0]["document_id"]
                answer = http.post("/v1/indexes/index/explain", json=query | {"document_id": found})
            assert answer.status_code in (200, 429), answer.text
            if answer.status_code == 429:
                time.sleep(float(answer.headers["retry-after"]))
            else:
                with done.get_lock():
                    done.value += 1


def send_headers(port: int, again: bool, stop: object) -> None:
    """Send a header that has no end, and begin again when the connection is closed, for a process of its own."""
    while not stop.is_set():
        with socket.create_connection(("127.0.0.1", port)) as client:
            try:
                client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: ")
                while not stop.is_set():
                    client.sendall(b"a" * (1 << 20))
            except ConnectionError:
                pass
        if not again:
            stop.wait()


@contextmanager
def beside(target: object, arguments: list[tuple[object, ...]]) -> Iterator[None]:
    """Run processes, which take an event that tells them to stop last, until the block ends."""
    stop = SPAWN.Event()
    running = [SPAWN.Process(target=target, args=(*each, stop)) for each in arguments]
    for each in running:
        each.start()
    time.sleep(2.0)  # until they ask
    try:
        yield
    finally:
        stop.set()
        for each in running:
            each.join()


def alive(port: int, seconds: float) -> list[float]:
    """Return the seconds of each /livez on a connection of its own."""
    took, end = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while client.recv(65536):
                pass
        took.append(time.perf_counter() - began)
        time.sleep(0.02)
    return took


def slow_beside(folder: Path, seconds: float) -> None:
    """Print what slow work and senders without end cost others."""
    rows: list[tuple[str, list[float], list[float], str]] = []
    manifest = json.loads(max(Path(folder, "manifests").iterdir()).read_text())
    dimension = manifest["projection"]["dimension"]
    with service(folder) as (url, _process):
        port = port_of(url)
        for kind in ("text", "vectors"):
            requests = [requests_of(kind, dimension, 0)]
            measure(url, requests, 2.0)  # warm
            for count in (1, 8):
                idle, busy, done = [], [], SPAWN.Value("i", 0)
                for _ in range(2):
                    idle += measure(url, requests, seconds / 2).seconds
                    with beside(ask_slowly, [(url, number, done) for number in range(count)]):
                        busy += measure(url, requests, seconds / 2).seconds
                rows.append((f"plain, {kind}, beside {count} of slow work", idle, busy, f"{done.value} answered"))
        for again in (False, True):
            idle, busy = [], []
            for _ in range(2):
                idle += alive(port, seconds / 4)
                with beside(send_headers, [(port, again)] * 8):
                    busy += alive(port, seconds / 4)
            rows.append((f"/livez, beside 8 endless headers{', again and again' if again else ''}", idle, busy, ""))
    print("| | idle, median, ms | 90% | beside, median, ms | 90% | times | slow work |\n|---|---|---|---|---|---|---|")
    for name, idle, busy, more in rows:
        points = [1000 * float(np.percentile(of, point)) for of in (idle, busy) for point in (50, 90)]
        print(f"| {name} | {' | '.join(f'{point:.1f}' for point in points)} | {points[2] / points[0]:.2f} | {more} |")


def cpu(process: subprocess.Popen[str]) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: subprocess.Popen[str]) -> float:
    """Megabytes of memory of a process that belong to it alone."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1000


def soak(folder: Path, seconds: float) -> None:
    """Print what happened under load, reloads and killed clients."""
    from gindex import GradientIndex
    from gindex.change.compact import compact
    from gindex.change.history import prune
    from gindex.store.layout import Layout

    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place, "index")))
        index = GradientIndex.open(copy)
        dimension = index.manifest.projection.dimension
        (found,) = index.search_vectors(np.ones((1, dimension), "f4"), k=100, hits="document")
        ids = [hit.document_id for hit in found.hits]
        more = Path(place, "more.jsonl")
        with service(copy, "--no-model", "--reload-seconds", "0.5") as (url, process):
            requests = [requests_of("vectors", dimension, number) for number in range(9)]
            report = SPAWN.Queue()
            running = SPAWN.Process(target=clients, args=(report, None, port_of(url), requests[:8], seconds))
            running.start()
            versions, killed, memory, step = 1, 0, [], 0
            next_step = time.time() + STEP_SECONDS
            while running.is_alive() and report.empty():
                victim = SPAWN.Process(target=fleet.run, args=(port_of(url), requests[8:], 2 * seconds))
                victim.start()
                time.sleep(KILL_SECONDS)
                os.kill(victim.pid, signal.SIGKILL)
                victim.join()
                killed += 1
                memory.append(resident(process))
                if time.time() >= next_step:
                    step, next_step = step + 1, time.time() + STEP_SECONDS
                    index = index.refresh()
                    if step % 10 == 0:
                        compact(Layout(copy))
                        prune(Layout(copy))
                    elif step % 10 == 5:
                        more.write_text(json.dumps({"id": f"soak-{step}", "text": "A document of the soak."}) + "\n")
                        index.add([str(more)])
                    elif ids:
                        index.delete([ids.pop()])
                    versions += 1
            answers = report.get()
            running.join()
            metrics = httpx2.get(f"{url}/metrics").text
            reloads = int(float(re.search(r'gindex_reloads_total{index="index"} (\S+)', metrics)[1]))
            served = re.findall(r'gindex_requests_total{.*search",status="(\d+)"} (\S+)', metrics)
    quarter = len(memory) // 4
    parts = [statistics.median(memory[n * quarter : (n + 1) * quarter]) for n in range(4)]
    print(f"{seconds:.0f} s, {answers.statuses.total():,} requests of the clients that lived, {dict(answers.statuses)}")
    print(f"statuses that the service counted: {', '.join(f'{status}: {float(n):,.0f}' for status, n in served)}")
    print(f"{killed} clients killed, {versions} versions committed, {reloads} switched to")
    print(f"memory in MB, median of each quarter: {', '.join(f'{part:.1f}' for part in parts)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "beside", "soak"])
    parser.add_argument("index", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 32, 64])
    parser.add_argument("--kinds", nargs="+", default=["vectors", "text"])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--pin", action="store_true", help="one core for what is measured, the other for the clients")
    given = parser.parse_args()
    if given.what == "load":
        load(given.index, given.clients, given.seconds or 5, given.kinds, given.pin)
    elif given.what == "beside":
        slow_beside(given.index, given.seconds or 20)
    else:
        soak(given.index, given.seconds or 600)
