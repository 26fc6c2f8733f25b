"""Measure a service against the library, and soak it.

    python tools/bench_serve.py load INDEX [--clients 1 4 16 32 64] [--seconds 5]
    python tools/bench_serve.py soak INDEX [--seconds 600]

`load` starts `gindex serve INDEX` and asks it over loopback from processes of their own, with ready vectors in NumPy's
format and with text. The library's figures are taken in this process before and after, on the same queries: one query
at a time, and in batches of 32. `soak` works on a copy of the index: vectors from eight clients, a document added or
deleted every few seconds, compacted now and then, and a client killed every few seconds.
"""

import argparse
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np

WARM, KILL_SECONDS, TEXTS = (
    0.5,
    4.0,
    ["A race condition is", "The kernel is", "A byte is", "To hack is", "The compiler is", "A bug is"],
)
HEADERS = {"Content-Type": "application/x-npy"}


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


def bodies(kind: str, dimension: int, number: int) -> list[tuple[bytes, dict[str, str]]]:
    """Queries of one client."""
    if kind == "text":
        ask = [json.dumps({"prompt": text, "completion": f" {number}"}).encode() for text in TEXTS]
        return [(content, {"Content-Type": "application/json"}) for content in ask]
    made = []
    for vector in np.random.default_rng(number).standard_normal((16, dimension)).astype(np.float32):
        out = io.BytesIO()
        np.save(out, vector)
        made.append((out.getvalue(), HEADERS))
    return made


def ask(url: str, queries: list[tuple[bytes, dict[str, str]]], until: object, report: object) -> None:
    """One client: ask one query after the other, and report the time of each and the statuses."""
    times, statuses, turn = [], {}, 0
    with httpx2.Client(timeout=60) as client:
        while time.time() < until.value:
            content, headers = queries[turn % len(queries)]
            start = time.perf_counter()
            status = client.post(f"{url}/v1/indexes/index/search", content=content, headers=headers).status_code
            times.append((time.time(), time.perf_counter() - start))
            statuses[status] = statuses.get(status, 0) + 1
            turn += 1
    report.put((times, statuses))


def threads(
    url: str, clients: list[list[tuple[bytes, dict[str, str]]]], until: object, report: object, started
) -> None:
    """Several clients in one process, which begin together with those of the others."""
    running = [threading.Thread(target=ask, args=(url, queries, until, report)) for queries in clients]
    started.wait()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def measure(url: str, kind: str, dimension: int, clients: int, seconds: float) -> tuple[list[float], float]:
    """Return the seconds of every request after the warm-up, and requests a second."""
    processes = multiprocessing.get_context("spawn")
    workers = min(2, clients)
    report, until, started = processes.Queue(), processes.Value("d", 2e10), processes.Barrier(workers + 1)
    queries = [bodies(kind, dimension, number) for number in range(clients)]
    running = [
        processes.Process(target=threads, args=(url, queries[n::workers], until, report, started))
        for n in range(workers)
    ]
    for worker in running:
        worker.start()
    started.wait()
    begin = time.time() + WARM
    until.value = end = begin + seconds
    found = [report.get() for _ in range(clients)]
    for worker in running:
        worker.join()
    assert {status for _, statuses in found for status in statuses} <= {200, 429}, "an error"
    times = [took for of, _ in found for at, took in of if begin <= at <= end]
    return times, len(times) / seconds


def load(folder: Path, clients: list[int], seconds: float, kinds: list[str]) -> None:
    """Print the table of loads."""
    from gindex import GradientIndex, Query

    index = GradientIndex.open(folder)
    dimension = index.manifest.projection["dimension"]
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
            for count in clients:
                spent, served = cpu(process), requests(url)
                times, rate = measure(url, kind, dimension, count, seconds)
                each = 1000 * (cpu(process) - spent) / max(1, requests(url) - served)
                points = np.percentile(np.array(times) * 1000, [50, 90, 99])
                rows.append((kind, count, *points, each, rate))
    after = {key: library(*key) for key in before}
    print("| queries | library | median, ms | processor, ms a query | a second |\n|---|---|---|---|---|")
    for (kind, batch), took in before.items():
        median, spent = (statistics.median(of) for of in zip(*took, *after[kind, batch], strict=True))
        print(
            f"| {kind} | batches of {batch} | {median * 1000:.1f} | {spent * 1000 / batch:.1f} | {batch / median:.0f} |"
        )
    print("\n| queries | clients | median, ms | 90% | 99% | processor, ms a query | a second |")
    print("|---|---|---|---|---|---|---|")
    for kind, count, *points, rate in rows:
        print(f"| {kind} | {count} | {' | '.join(f'{point:.1f}' for point in points)} | {rate:.0f} |")


def cpu(process: subprocess.Popen[str]) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests(url: str) -> float:
    """Searches that a service has answered."""
    found = re.findall(r'gindex_requests_total.*search",status="200"} (\S+)', httpx2.get(f"{url}/metrics").text)
    return sum(map(float, found))


def resident(process: subprocess.Popen[str]) -> float:
    """Megabytes of memory of a process that belong to it alone."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1000


def soak(folder: Path, seconds: float) -> None:
    """Print what happened under load, reloads and killed clients."""
    from gindex import GradientIndex
    from gindex.store.layout import Layout
    from gindex.upkeep.compact import compact
    from gindex.upkeep.history import prune

    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place, "index")))
        index = GradientIndex.open(copy)
        dimension = index.manifest.projection["dimension"]
        (found,) = index.search_vectors(np.ones((1, dimension), "f4"), k=100, group_by="document")
        ids = [hit.document_id for hit in found.hits]
        more = Path(place, "more.jsonl")
        with service(copy, "--no-model", "--reload-seconds", "0.5") as (url, process):
            report, until, started = processes.Queue(), processes.Value("d", 2e10), processes.Barrier(3)
            clients = [bodies("vectors", dimension, number) for number in range(8)]
            running = [
                processes.Process(target=threads, args=(url, clients[n::2], until, report, started)) for n in range(2)
            ]
            for worker in running:
                worker.start()
            versions, killed, memory, step = 1, 0, [], 0
            started.wait()
            until.value = end = time.time() + seconds
            next_step = time.time() + 3
            while time.time() < end:
                unread = processes.Queue()
                victim = processes.Process(target=ask, args=(url, clients[0], until, unread))
                victim.start()
                time.sleep(KILL_SECONDS)
                os.kill(victim.pid, signal.SIGKILL)
                victim.join()
                killed += 1
                memory.append((time.time(), resident(process)))
                if time.time() >= next_step:
                    step, next_step = step + 1, time.time() + 3
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
            statuses: dict[int, int] = {}
            for _ in clients:
                for status, count in report.get()[1].items():
                    statuses[status] = statuses.get(status, 0) + count
            for worker in running:
                worker.join()
            metrics = httpx2.get(f"{url}/metrics").text
            reloads = int(float(re.search(r'gindex_reloads_total{index="index"} (\S+)', metrics)[1]))
    quarter = len(memory) // 4
    parts = [statistics.median(m for _, m in memory[n * quarter : (n + 1) * quarter]) for n in range(4)]
    print(f"{seconds:.0f} s, {sum(statuses.values()):,} requests, statuses {statuses}, {killed} clients killed")
    print(f"{versions} versions committed, {reloads} switched to")
    print(f"memory in MB, median of each quarter: {', '.join(f'{part:.0f}' for part in parts)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "soak"])
    parser.add_argument("index", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 32, 64])
    parser.add_argument("--kinds", nargs="+", default=["vectors", "text"])
    parser.add_argument("--seconds", type=float)
    given = parser.parse_args()
    if given.what == "load":
        load(given.index, given.clients, given.seconds or 5, given.kinds)
    else:
        soak(given.index, given.seconds or 600)
