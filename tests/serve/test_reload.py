"""New versions while requests go on, damage, and documents that come over HTTP."""

import base64
import json
import shutil
import threading
from urllib.parse import quote

import numpy as np
import pytest
from growth import add_copies

from gindex import GradientIndex
from gindex.change.compact import compact
from gindex.change.verify import verify
from gindex.store.files import read_json, write_json
from gindex.store.layout import Layout

VECTOR = base64.b64encode(np.ones(512, "<f4").tobytes()).decode()


@pytest.fixture
def more(tmp_path):
    path = tmp_path / "more.jsonl"
    path.write_text('{"id": "new", "text": "the kernel page fault in the parser", "number": 1}\n')
    return path


def test_versions_are_switched_to_without_a_failed_request(start, folder, more, until):
    running = start(f"index={folder}")
    seen, failed, done = [], [], threading.Event()

    def ask():
        while not done.is_set():
            answer = running.search({"vector": VECTOR, "k": 3})
            if answer.status_code == 200:
                seen.append(answer.json()["version"])
            else:
                failed.append(answer.text)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    opened = GradientIndex.open(folder, device="cpu")
    opened.add([str(more)])
    until(lambda: 2 in seen)
    opened.refresh().delete(["d1"])
    until(lambda: 3 in seen)
    compact(Layout(folder))
    until(lambda: 4 in seen)
    done.set()
    for thread in asking:
        thread.join()
    assert not failed and set(seen) == {1, 2, 3, 4}
    assert running.http.get("/v1/indexes/index/documents/new").json()["version"] == 4
    assert running.http.get("/v1/indexes/index/documents/d1").status_code == 404
    assert running.search({"prompt": "the kernel page", "k": 3}).json()["version"] == 4


def test_documents_come_and_go_over_http(start, folder):
    running = start(f"index={folder}", writable=True)
    text = "<script>alert(1)</script> the heap & the stack"
    body = {"documents": [{"id": "a/b ?", "text": text, "number": 7}]}
    added = running.http.post("/v1/indexes/index/documents", json=body)
    assert added.status_code == 201 and added.json() == {
        "index": "index", "version": 2, "added": 1, "replaced": 0, "deleted": 0
    }  # fmt: skip
    found = running.http.get("/v1/indexes/index/documents/a%2Fb%20%3F").json()
    assert found["text"] == text and found["metadata"] == {"number": 7} and found["version"] == 2
    again = running.http.post("/v1/indexes/index/documents", json=body)
    assert again.status_code == 422 and str(folder) not in again.text and "tmp" not in again.text
    replaced = running.http.post("/v1/indexes/index/documents", json=body | {"replace": True})
    assert replaced.json()["replaced"] == 1
    gone = running.http.delete("/v1/indexes/index/documents/a%2Fb%20%3F")
    assert gone.json()["deleted"] == 1 and gone.json()["version"] == 4
    assert running.http.delete("/v1/indexes/index/documents/a%2Fb%20%3F").status_code == 404
    bad = {"documents": [{"id": "x", "text": "half \ud800"}]}
    headers = {"Content-Type": "application/json"}
    half = running.http.post("/v1/indexes/index/documents", content=json.dumps(bad), headers=headers)
    assert half.status_code in (400, 422)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (r'{"id": "x", "text": "the heap", "text": "the stack"}', "'text' twice"),
        (r'{"id": "x", "text": "the heap", "deep": [{"k": 1, "\u006b": 2}]}', "'k' twice"),
        (r'{"id": "x", "text": "the heap", "author": "half \ud83d"}', ""),
        (r'{"id": "x", "text": "the heap"}, {"id": "y", "text": " "}', "documents.1: expected text"),
        (
            r'{"id": "x", "text": "the heap"}, {"id": "x", "text": "a"}',
            "documents.1: expected unique ids, found 'x' again",
        ),
        (r'{"id": "d1", "text": "the heap"}', "document 'd1': expected an id that is not in the index"),
    ],
)
def test_documents_over_http_are_checked_as_those_of_files(start, folder, record, found):
    running = start(f"index={folder}", writable=True, prompts=False)
    body = f'{{"documents": [{record}]}}'
    headers = {"Content-Type": "application/json"}
    refused = running.http.post("/v1/indexes/index/documents", content=body, headers=headers)
    assert refused.status_code in (400, 422) and found in refused.text and "tmp" not in refused.text
    assert running.http.get("/v1/indexes/index").json()["version"] == 1


def test_infinite_numbers_over_http_are_kept_as_those_of_files(start, folder):
    running = start(f"index={folder}", writable=True, prompts=False)
    body = '{"documents": [{"id": "x", "text": "the heap", "far": 1e999, "n": [-1e999]}]}'
    headers = {"Content-Type": "application/json"}
    assert running.http.post("/v1/indexes/index/documents", content=body, headers=headers).status_code == 201
    found = running.http.get("/v1/indexes/index/documents/x").json()
    assert found["metadata"] == {"far": "Infinity", "n": ["-Infinity"]}


def test_a_lost_index_is_unavailable_and_the_others_go_on(start, built, folder, tmp_path, until):
    running = start(f"lost={folder}", f"kept={built}")
    shutil.move(folder, tmp_path / "elsewhere")
    until(lambda: not running.service.indexes["lost"].ready)
    refused = running.search({"prompt": "the heap"}, "lost")
    assert refused.status_code == 503 and str(tmp_path) not in refused.text and "retry-after" in refused.headers
    assert running.search({"prompt": "the heap"}, "kept").status_code == 200
    assert running.http.get("/readyz").json()["indexes"] == {"lost": False, "kept": True}
    shutil.move(tmp_path / "elsewhere", folder)
    until(lambda: running.service.indexes["lost"].ready)
    assert running.search({"prompt": "the heap"}, "lost").status_code == 200


def test_damage_found_while_serving(start, built, folder, until):
    """A byte of the vectors is turned before they are first read; the file keeps its length."""
    running = start(f"damaged={folder}", f"kept={built}", prompts=False)
    shard = max((folder / "volumes").rglob("codes/c/*/0"), key=lambda path: path.stat().st_size)
    content = shard.read_bytes()
    shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    refused = running.search({"vector": VECTOR, "scan": True}, "damaged")
    assert refused.status_code == 503 and str(folder) not in refused.text
    assert running.search({"vector": VECTOR}, "kept").status_code == 200
    assert running.search({"vector": VECTOR}, "damaged").status_code == 503  # verified, and so not opened again
    shard.write_bytes(content)
    until(lambda: running.service.indexes["damaged"].ready, 60)
    assert running.search({"vector": VECTOR, "scan": True}, "damaged").status_code == 200


def test_without_a_model_prompts_are_refused(start, built):
    running = start(f"index={built}", prompts=False)
    assert running.search({"vector": VECTOR}).status_code == 200
    refused = running.search({"prompt": "the heap"})
    assert refused.status_code == 422 and "no model" in refused.json()["detail"]
    assert not running.service.indexes["index"].current.model.is_loaded


def test_why_an_index_is_not_ready_is_told(start, built, folder, tmp_path, until):
    """Its model is gone: HTTP and /readyz say so without a path, and --model mends it."""
    manifest = folder / "manifests/00000001.json"
    content = read_json(manifest)
    model = content["model"]["folder"]
    content["model"] |= {"folder": str(tmp_path / "gone"), "relative": "../gone"}
    write_json(manifest, content)
    running = start(f"lost={folder}", f"kept={built}")
    until(lambda: "not found" in (running.service.indexes["lost"].reason or ""))
    reason = running.service.indexes["lost"].reason
    refused = running.search({"prompt": "the heap"}, "lost")
    assert refused.status_code == 503 and f"found that it is not: {reason}; try again later" in refused.json()["detail"]
    assert running.http.get("/readyz").json() == {
        "status": "ready", "indexes": {"lost": False, "kept": True}, "reasons": {"lost": reason}
    }  # fmt: skip
    lost, kept = running.http.get("/v1/indexes").json()["indexes"]
    assert lost["reason"] == reason and "`model`" in reason and "reason" not in kept
    assert str(tmp_path) not in refused.text + running.http.get("/v1/indexes").text
    mended = start(f"lost={folder}", f"kept={built}", models=[f"lost={model}"])
    until(lambda: mended.service.indexes["lost"].ready)
    assert mended.search({"prompt": "the heap"}, "lost").status_code == 200


def test_what_is_due_is_merged_in_the_background(start, folder):
    """Searches go on meanwhile, and are answered as before."""
    for seed in range(9):
        add_copies(Layout(folder), 1, seed, merge=False)
    running = start(f"index={folder}", writable=True, prompts=False)
    query = {"vector": VECTOR, "k": 5}
    before = running.search(query).json()["hits"]
    last = before[-1]["document_id"]
    assert running.http.delete(f"/v1/indexes/index/documents/{quote(last, safe='')}").json()["deleted"] == 1
    hits = []
    while (manifest := running.service.indexes["index"].current.manifest).operation.kind != "merge":
        hits.append(running.search(query).json()["hits"])
    hits.append(running.search(query).json()["hits"])
    assert len(manifest.volumes) < 10 and manifest.version == 12
    assert all([hit["document_id"] for hit in of[:4]] == [hit["document_id"] for hit in before[:4]] for of in hits)
    assert verify(Layout(folder))["problems"] == []
