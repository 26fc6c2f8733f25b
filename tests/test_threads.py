"""One index, one model, many threads, forks and copies: every answer is that of a serial run, to the bit."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from gindex import GradientIndex, ModelConfig
from gindex.lab.attribution import Attribution, tracked_layers
from gindex.lab.refine.config import CgConfig
from gindex.model.fingerprints import fingerprint_tokenizer
from gindex.model.load import load_model
from gindex.model.tasks import Classification
from gindex.model.tensors import tensor_batches
from gindex.threads import Lock, once

THREADS, ROUNDS = 4, 3
PROMPTS = ["the compiler race", "a stack", "heap the page file", "lock thread a disk bug"]
HANG = 300
"""Seconds after which a forked process counts as one that waits for ever; its work takes one or two."""


def everything(index: GradientIndex) -> list[Callable[[], Any]]:
    """All kinds of questions that need the model, the vectors or the documents."""

    def hits(prompt: str, **settings: Any) -> Any:
        return index.search(prompt, " bug", k=5, **settings).hits

    asked: list[Callable[[], Any]] = []
    for prompt in PROMPTS:
        asked += [
            lambda p=prompt: hits(p),
            lambda p=prompt: hits(p, exact=True, candidates=20),
            lambda p=prompt: hits(
                p, exact=True, candidates=10, refine="cg", refine_parts=4, refine_settings={"iterations": 2}
            ),
            lambda p=prompt: hits(p, words="rank", where="number > 3", layers=True, normalise="unit"),
            lambda p=prompt: index.explain("d3", p, " bug"),
        ]
    return [*asked, lambda: index.outliers(5), lambda: index.fidelity(sample=2, parts=30).scores.tolist()]


def answers_of_threads(asked: list[Callable[[], Any]]) -> list[list[Any]]:
    """Ask everything in each of some threads, in another order in each, all beginning at once."""
    begin = threading.Barrier(THREADS)

    def ask(thread: int) -> list[Any]:
        begin.wait()
        order = asked[thread * 3 :] + asked[: thread * 3]
        answers = [question() for _ in range(ROUNDS) for question in order][: len(order)]
        return answers[len(order) - thread * 3 :] + answers[: len(order) - thread * 3]

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(ask, range(THREADS)))


def test_threads_are_answered_as_one_after_the_other(built):
    expected = [question() for question in everything(GradientIndex.open(built, device="cpu"))]
    shared = GradientIndex.open(built, device="cpu")  # nothing is loaded: all threads come to that at once
    assert answers_of_threads(everything(shared)) == [expected] * THREADS


def test_indexes_that_share_a_model_answer_beside_each_other_and_an_add(built, tmp_path, corpus_file):
    folder = tmp_path / "index"
    shutil.copytree(built, folder)
    first = GradientIndex.open(folder, device="cpu")
    first.delete(["d7"])
    second = first.refresh()
    expected = [[question() for question in everything(index)] for index in (first, second)]
    shared = first.refresh()
    assert shared.model.tracked is first.model.tracked and shared is not first
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "new", "text": "the lock the race"}\n')
    with ThreadPoolExecutor(3) as pool:
        added = pool.submit(shared.add, [str(more)])
        asked = [pool.submit(lambda i=i: [question() for question in everything(i)]) for i in (first, shared)]
        assert [future.result() for future in asked] == expected
        assert added.result().documents == 1
    assert shared.refresh().document("new").text == "the lock the race"


def test_attribution_in_threads(built):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    x, y = torch.randn(24, 6), torch.arange(24) % 3
    documents, queries = tensor_batches(x, y, 5), tensor_batches(x[:4] + 0.1, y[:4], 2)
    task = Classification(model)

    def attribution() -> Attribution[Any]:
        return Attribution.fit(task, tracked_layers(task, documents), documents)

    fitted = attribution()
    solver = CgConfig(iterations=3)

    def asked() -> list[Callable[[], Any]]:
        return [
            lambda: attribution().influence(queries, documents).tolist(),
            lambda: fitted.influence(queries, documents).tolist(),
            lambda: fitted.self_influence(documents).tolist(),
            lambda: fitted.influence_by(
                fitted.iterative_inverse(documents, config=solver), queries, documents
            ).tolist(),
            lambda: model(x).tolist(),  # the caller's own use of the model sees none of it
        ] * 3

    assert answers_of_threads(asked()) == [[question() for question in asked()]] * THREADS


def test_a_report_of_progress_may_ask_the_index(index):
    expected = index.search(PROMPTS[0], " bug", k=5, exact=True).hits
    inner: list[Any] = []

    class Asking:
        def phase(self, name: str, total: int | None, unit: str) -> Any:
            self.name = name
            return self

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_error: object) -> None:
            pass

        def advance(self, steps: int = 1) -> None:
            if len(inner) < 3:  # the first come from within a pass, where a layer's factors are loaded
                inner.append(index.search(PROMPTS[1], " bug", k=5).hits)

    (outer,) = index.search_many([query(PROMPTS[0])], k=5, exact=True, progress=Asking())
    assert outer.hits == expected
    assert inner == [index.search(PROMPTS[1], " bug", k=5).hits] * 3


def test_a_tokenizer_that_cuts_and_pads_is_shared_too(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    changed = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    changed.enable_truncation(8)
    changed.enable_padding(length=8, pad_token="<unk>", pad_id=0)
    changed.save(str(folder / "tokenizer.json"))
    loaded = load_model(ModelConfig(name=str(folder), device="cpu"))
    assert loaded.tokenizer_fingerprint == fingerprint_tokenizer(AutoTokenizer.from_pretrained(folder))
    settled = loaded.tokenizer.backend_tokenizer
    assert settled.truncation is None and settled.padding is None


def query(prompt: str) -> Any:
    from gindex.queries.query import Query

    return Query(prompt=prompt, completion=" bug")


@pytest.fixture
def two_threads() -> Any:
    """OpenMP with a thread to wait for, which a fork does not have."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    x = torch.randn(512, 512)
    x @ x
    yield
    torch.set_num_threads(before)


def in_fork(act: Callable[[], bool]) -> int:
    """Return the exit status of a forked process: 0 where it finds `act` true, a signal where it hangs."""
    child = os.fork()
    if not child:
        signal.alarm(HANG)
        status = 3
        try:
            status = 0 if act() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def rounded(result: Any) -> list[tuple[Any, ...]]:
    """Hits to five digits: one thread adds up in another order than two."""
    return [(hit.document_id, hit.part, f"{hit.score:.5g}", f"{hit.influence:.5g}") for hit in result.hits]


def test_a_fork_answers_too(built, two_threads):
    index = GradientIndex.open(built, device="cpu")

    def ask() -> list[tuple[Any, ...]]:
        return rounded(index.search(PROMPTS[0], " bug", k=5, exact=True))

    expected = ask()
    assert in_fork(lambda: ask() == expected) == 0
    assert ask() == expected


def test_a_fork_amid_passes_of_other_threads(built, two_threads):
    index = GradientIndex.open(built, device="cpu")

    def ask() -> list[tuple[Any, ...]]:
        return rounded(index.search(PROMPTS[0], " bug", k=5, exact=True))

    expected, ended = ask(), threading.Event()

    def work() -> None:
        while not ended.is_set():
            index.search(PROMPTS[1], " bug", k=5, exact=True)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        assert [in_fork(lambda: ask() == expected) for _ in range(5)] == [0] * 5
    finally:
        ended.set()
        for worker in workers:
            worker.join()


def test_a_fork_finds_locks_free():
    lock, taken, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()

    def take() -> bool:
        with lock:
            return True

    assert in_fork(take) == 0
    done.set()
    holder.join()


@pytest.mark.parametrize("copy", [lambda index: pickle.loads(pickle.dumps(index)), deepcopy], ids=["pickle", "copy"])
def test_a_copy_opens_the_same_version_itself(built, tmp_path, copy):
    folder = tmp_path / "index"
    shutil.copytree(built, folder)
    index = GradientIndex.open(folder, device="cpu")
    expected = index.search(PROMPTS[0], k=5).hits
    assert len(pickle.dumps(index)) < 2000  # a path and settings
    index.delete(["d7"])
    again = copy(index)
    assert again.manifest == index.manifest and again.model.tracked is not index.model.tracked
    assert again.search(PROMPTS[0], k=5).hits == expected


SPAWNED = """
import multiprocessing, sys
from gindex import GradientIndex

def ask(index):
    return [(hit.document_id, hit.score) for hit in index.search("the compiler race", k=5).hits]

if __name__ == "__main__":
    index = GradientIndex.open(sys.argv[1], device="cpu")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(ask, [index]) == [ask(index)]
"""


def test_a_spawned_process_takes_an_index(built, tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    root = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, script, built], check=True, env=os.environ | {"PYTHONPATH": root})


def test_the_process_may_go_elsewhere(built, model_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(built.parent)
    expected = GradientIndex.open(built, device="cpu").search(PROMPTS[0], k=5, exact=True).hits
    index = GradientIndex.open(built.name, model=os.path.relpath(model_folder), device="cpu")
    monkeypatch.chdir(tmp_path)
    assert index.search(PROMPTS[0], k=5, exact=True).hits == expected
    assert index.explain("d3", PROMPTS[0]).document_id == "d3"


def test_an_attribute_is_made_once_though_all_threads_ask_for_it():
    made = []

    class Holder:
        def __init__(self) -> None:
            self.loading = Lock()

        @once
        def value(self) -> object:
            """Doc."""
            made.append(begin.wait(0.2) if not made else None)  # gives the others time to come
            return object()

    holder, begin = Holder(), threading.Event()
    with ThreadPoolExecutor(THREADS) as pool:
        values = list(pool.map(lambda _: holder.value, range(THREADS)))
    assert len(made) == 1 and len(set(map(id, values))) == 1
    assert Holder.value.__doc__ == "Doc."


def test_an_attribute_that_is_given_is_not_made():
    class Holder:
        def __init__(self, value: int | None = None) -> None:
            self.loading = Lock()
            if value is not None:
                self.value = value

        @once
        def value(self) -> int:
            """Doc."""
            return 7

    given, empty = Holder(3), Holder()
    assert Holder.value.is_made(given) and given.value == 3
    assert not Holder.value.is_made(empty) and empty.value == 7 and Holder.value.is_made(empty)
