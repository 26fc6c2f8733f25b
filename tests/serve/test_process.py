"""`gindex serve` as a process: its signals, its port, and what it refuses to start with."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import numpy as np
import pytest


@pytest.fixture
def process(gindex_serve):
    started = []

    def start(*arguments):
        made = subprocess.Popen(
            [gindex_serve, "serve", *map(str, arguments), "--port", "0", "--device", "cpu"],
            stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        started.append(made)
        for line in made.stderr:
            if " at http://" in line:
                break
        url = line.split(" at ")[1].strip().rstrip("/")
        end = time.monotonic() + 600
        while time.monotonic() < end:
            try:
                if httpx2.get(f"{url}/readyz").status_code == 200:
                    return made, url
            except httpx2.ConnectError:
                pass
            time.sleep(0.1)
        raise AssertionError("not ready")

    yield start
    for made in started:
        made.kill()
        made.wait()
        made.stderr.close()


@pytest.fixture(scope="session")
def gindex_serve():
    from pathlib import Path

    return Path(sys.executable).with_name("gindex")


def test_the_first_signal_drains(process, built):
    made, url = process(f"index={built}")
    body = {"prompt": "the compiler race", "exact": True, "k": 100, "candidates": 150}
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx2.post(f"{url}/v1/indexes/index/search", json=body, timeout=300))
    )
    asking.start()
    end = time.monotonic() + 300
    while "gindex_batch_queries_count 1.0" not in httpx2.get(f"{url}/metrics").text and time.monotonic() < end:
        time.sleep(0.01)
    made.send_signal(signal.SIGTERM)
    asking.join()
    assert answers[0].status_code == 200 and len(answers[0].json()["hits"]) == 100
    assert made.wait(300) == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/livez")


def test_the_second_signal_ends(process, built):
    made, url = process(f"index={built}", "--no-model")
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.sendall(b"POST /v1/indexes/index/search HTTP/1.1\r\nHost: localhost\r\n"
                       b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{")  # fmt: skip
        time.sleep(0.3)
        made.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert made.poll() is None  # it waits for the rest of the request
        made.send_signal(signal.SIGTERM)
        assert made.wait(300) == 1


def test_refusals_at_the_start(run, built, tmp_path):
    def refused(code, *arguments):
        result = run("serve", *arguments)
        assert result.exit_code == code and "Traceback" not in result.output, result.output
        return result.stderr.strip().splitlines()[-1]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "expected a free port" in refused(2, built, "--port", taken.getsockname()[1])
    assert "expected an index" in refused(8, tmp_path)
    assert "NAME=FOLDER" in refused(2, built, built)
    assert "expected --api-key-file" in refused(2, built, "--host", "0.0.0.0", "--writable")
    assert "a file of API keys" in refused(2, built, "--api-key-file", tmp_path / "none")


FILES = {
    "faiss": "search/*.faiss", "codes": "volumes/*/vectors/codes/c/*/0", "scales": "volumes/*/vectors/scales/c/*/0",
    "bases": "factors/eigenbases-*", "values": "factors/eigenvalues-*", "documents": "volumes/*/documents*",
}  # fmt: skip
"""What an index is made of, and the process reads while it serves."""


def test_files_cut_short_while_serving_end_no_process(process, built, tmp_path):
    """A page beyond the end of a mapped file is a signal, not an error."""
    copies = {name: shutil.copytree(built, tmp_path / name) for name in FILES}
    made, url = process(*(f"{n}={p}" for n, p in copies.items()), f"kept={built}", "--reload-seconds", 600)
    vector = base64.b64encode(np.ones(512, "<f4").tobytes()).decode()
    bodies = [
        {"vector": vector}, {"vector": vector, "scan": True}, {"prompt": "the compiler race"},
        {"prompt": "the compiler race", "exact": True, "candidates": 3},
    ]  # fmt: skip

    def ask(name):
        search = f"{url}/v1/indexes/{name}/search"
        return [httpx2.post(search, json=body, timeout=300).status_code for body in bodies]

    assert all(ask(name) == [200] * 4 for name in [*FILES, "kept"])
    for name, pattern in FILES.items():
        cut = list(copies[name].glob(pattern))
        assert cut
        for path in cut:
            os.truncate(path, 1)
    found = {name: ask(name) for name in [*FILES, "kept"]}
    assert made.poll() is None
    assert found.pop("kept") == [200] * 4 and found.pop("faiss") == [200] * 4  # the FAISS index is held in memory
    assert all(set(statuses) <= {200, 503} and statuses[-1] == 503 for statuses in found.values()), found
