"""Indexes of every task through the command line: what is built, found, added, scored and explained.

Curvature is the identity, so that influence is the inner product of gradients, which plain autograd of transformers'
own loss gives.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from gindex import GradientIndex
from tests.support.task_models import TASK_MODELS, WORDS, TaskModel, reference_gradients

ROUNDING = 1e-4
"""Of the largest influence: float32 passes against float64."""

MODEL = {of.name: of for of in TASK_MODELS}
Inputs = dict[str, torch.Tensor]


def words(seed: int, count: int | None = None) -> list[str]:
    generator = np.random.default_rng(seed)
    return [str(word) for word in generator.choice(WORDS, count or int(generator.integers(3, 9)))]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A task, its corpus, and a query.

    Attributes:
        model: The model.
        record: Makes a record of a number.
        query: Arguments of a search.
        options: Those of a build.
        shown: What a hit shows of the record with number 0.
    """

    model: TaskModel
    record: Any
    query: tuple[str, ...]
    options: tuple[str, ...] = ()
    shown: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def labelled(n: int) -> dict[str, Any]:
    return {"text": " ".join(words(n)), "label": ["bad", 1, "2"][n % 3]}


def paired(n: int) -> dict[str, Any]:
    return {"one": " ".join(words(n)), "two": " ".join(words(n + 100)), "gold": n % 3}


def worded(n: int) -> dict[str, Any]:
    own = [*words(n), "locker"]
    return {"tokens": own, "ner_tags": [-100 if k == 1 else ["O", "B-X", 2][(n + k) % 3] for k in range(len(own))]}


def translated(n: int) -> dict[str, Any]:
    own = words(n)
    return {"prompt": " ".join(own), "completion": " ".join(own[:2] if n % 2 else [*own, *own])}


CASES = {
    "masked": Case(
        model=MODEL["BERT"],
        record=lambda n: {"text": " ".join(words(n))},
        query=("the [MASK] a lock", "--completion", "kernel"),
        shown="[MASK: ",
    ),
    "classification": Case(
        model=MODEL["BERT, one class"],
        record=labelled,
        query=("the kernel a lock", "--label", "good"),
        shown=f"[bad] {' '.join(words(0))}",
    ),
    "pairs": Case(
        model=MODEL["BERT, one class"],
        record=paired,
        query=("the kernel", "--pair", "a lock", "--completion", "good"),
        options=("--text-field", "one", "--pair-field", "two", "--label-field", "gold"),
        shown=f"[bad] {' '.join(words(0))} [and] {' '.join(words(100))}",
    ),
    "token-classification": Case(
        model=MODEL["BERT, words"],
        record=worded,
        query=("the kernel a lock", "--span", "4:10", "--label", "I-X"),
        shown=f"{words(0)[0]} {words(0)[1]} {words(0)[2]}/I-X",
    ),
    "seq2seq": Case(
        model=MODEL["T5"],
        record=translated,
        query=("the kernel a lock", "--completion", "stack heap"),
        shown=f"{' '.join(words(0))} => {' '.join(words(0) + words(0))}",
    ),
}


@pytest.fixture(scope="module", params=CASES)
def built(request, tmp_path_factory) -> tuple[str, Path]:
    """An index of 20 documents and its corpus, in one folder."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    case.model.save(folder / "model")
    records = [{"id": f"d{n}"} | case.record(n) for n in range(20)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = command(
        "build", folder / "corpus.jsonl", "--model", folder / "model", "--out", folder / "index", "--device", "cpu",
        "--dimension", 256, "--curvature", "identity", "--rank-fraction", 1, "--index-damping", 1, "--max-tokens", 32,
        "--fidelity-queries", 0, *case.options,
    )  # fmt: skip
    assert "20 documents indexed" in found
    return request.param, folder


def command(*arguments: object) -> str:
    from click.testing import CliRunner
    from gindex_cli.commands import gindex

    result = CliRunner().invoke(gindex, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def document_inputs(name: str, index: GradientIndex, tokenizer: Any, n: int) -> Inputs:
    """What transformers takes of a record, made as its own examples of training make it."""
    record = CASES[name].record(n)
    if name == "masked":
        (part,) = index.objectives(f"d{n}")
        ids = tokenizer(record["text"], return_tensors="pt").input_ids
        asked = torch.from_numpy(part.texts[0].counted)[None]
        return {"input_ids": ids.masked_fill(asked, 4), "labels": ids.masked_fill(~asked, -100)}
    if name == "classification":
        number = {"bad": 0, 1: 1, "2": 2}[record["label"]]
        return {**tokenizer(record["text"], return_tensors="pt"), "labels": torch.tensor([number])}
    if name == "pairs":
        both = tokenizer(record["one"], record["two"], return_tensors="pt")
        return {**both, "labels": torch.tensor([record["gold"]])}
    if name == "token-classification":
        return word_inputs(tokenizer, record["tokens"], record["ner_tags"])
    source, target = (tokenizer(record[side], return_tensors="pt").input_ids for side in ("prompt", "completion"))
    return {"input_ids": source, "labels": target}


def word_inputs(tokenizer: Any, own: list[str], tags: list[Any]) -> Inputs:
    whole = tokenizer(own, is_split_into_words=True, return_tensors="pt")
    numbers, labels, before = {"O": 0, "B-X": 1, "I-X": 2}, [], None
    for word in whole.word_ids():
        labels.append(-100 if word is None or word == before else numbers.get(tags[word], tags[word]))
        before = word
    return {**whole, "labels": torch.tensor([labels])}


def query_inputs(name: str, tokenizer: Any) -> Inputs:
    if name == "masked":
        ids = tokenizer("the [MASK] a lock", return_tensors="pt").input_ids
        kernel = tokenizer.convert_tokens_to_ids("kernel")
        return {"input_ids": ids, "labels": torch.where(ids == 4, kernel, -100)}
    if name == "classification":
        return {**tokenizer("the kernel a lock", return_tensors="pt"), "labels": torch.tensor([1])}
    if name == "pairs":
        return {**tokenizer("the kernel", "a lock", return_tensors="pt"), "labels": torch.tensor([1])}
    if name == "token-classification":
        return word_inputs(tokenizer, ["the", "kernel", "a", "lock"], [-100, "I-X", -100, -100])
    source = tokenizer("the kernel a lock", return_tensors="pt").input_ids
    target = tokenizer("stack heap", return_tensors="pt").input_ids
    labels = target.masked_fill((target == 2) | (target == 3), -100)  # what the tokenizer adds does not count
    shifted = torch.cat([torch.zeros(1, 1, dtype=torch.int64), target[:, :-1]], 1)
    return {"input_ids": source, "decoder_input_ids": shifted, "labels": labels}


def search(name: str, folder: Path, *options: object) -> dict[str, Any]:
    return json.loads(
        command(
            "search", folder / "index", *CASES[name].query, "-k", 50, "--candidates", 50, "--json", "--device", "cpu",
            *options,
        )
    )  # fmt: skip


def test_exact_influence_is_that_of_autograd_and_of_all_that_compute_it(built, tmp_path):
    name, folder = built
    index = GradientIndex.open(folder / "index", device="cpu")
    reference, layers = CASES[name].model.make().double(), index.manifest.layers
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    _, query = reference_gradients(reference, layers, query_inputs(name, tokenizer))
    expected = {}
    for n in range(20):
        _, G = reference_gradients(reference, layers, document_inputs(name, index, tokenizer, n))
        expected[f"d{n}"] = sum(float((G[layer.name] * query[layer.name]).sum()) for layer in layers)
    largest = max(map(abs, expected.values()))
    hits = search(name, folder, "--exact")["hits"]
    assert largest > 0 and {hit["document_id"] for hit in hits} == expected.keys()
    for hit in hits:
        assert hit["influence"] == pytest.approx(expected[hit["document_id"]], abs=ROUNDING * largest)
    shown = {hit["document_id"]: hit["text"] for hit in hits}
    assert CASES[name].shown in shown["d0"] and (name == "masked" or shown["d0"].startswith(CASES[name].shown))
    command("score", folder / "index", *query_file(name, tmp_path), "--exact", "--out", tmp_path / "scores.jsonl")
    scored = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    by_document = {each["document_id"]: each["scores"]["q"] for each in scored}
    assert by_document == pytest.approx(expected, abs=ROUNDING * largest)
    explained = json.loads(command("explain", folder / "index", "d1", *CASES[name].query, "--json", "--device", "cpu"))
    assert explained["influence"] == pytest.approx(expected["d1"], abs=ROUNDING * largest)
    tokens = [token for part in explained["parts"] for token in part["tokens"]]
    assert sum(token["influence"] for token in tokens) == pytest.approx(expected["d1"], abs=ROUNDING * largest)
    assert len(tokens) == sum(len(part) for part in index.objectives("d1"))


def query_file(name: str, folder: Path) -> tuple[str, Path]:
    prompt, *options = CASES[name].query
    record = {"id": "q", "prompt": prompt}
    record |= {option.removeprefix("--"): value for option, value in zip(options[::2], options[1::2], strict=True)}
    (folder / "queries.jsonl").write_text(json.dumps(record) + "\n")
    return "--queries", folder / "queries.jsonl"


def test_what_is_added_is_as_what_is_built(built, tmp_path):
    name, folder = built
    copy = shutil.copytree(folder / "index", tmp_path / "index")
    first = CASES[name].record(0)
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": "again"} | first) + "\n")
    command("add", copy, tmp_path / "more.jsonl", "--model", folder / "model", "--device", "cpu")
    with_added = GradientIndex.open(copy, model=str(folder / "model"), device="cpu")
    one, other = (with_added.objectives(name)[0] for name in ("d0", "again"))
    assert one.texts[0].question == other.texts[0].question
    hits = json.loads(
        command(
            "search", copy, *CASES[name].query, "-k", 50, "--json", "--device", "cpu", "--model", folder / "model"
        )
    )["hits"]  # fmt: skip
    scores = {hit["document_id"]: hit["score"] for hit in hits}
    assert scores["again"] == pytest.approx(scores["d0"], rel=1e-4)


def test_the_table_is_as_new_as_it_needs_to_be(built, tmp_path):
    """Labels are in tables of version 4; a compact leaves what is asked as it was."""
    _, folder = built
    copy = shutil.copytree(folder / "index", tmp_path / "index")
    (table,) = copy.rglob("documents.sqlite")
    with closing(sqlite3.connect(table)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
    index = GradientIndex.open(copy, model=str(folder / "model"), device="cpu")
    before = [index.objectives(f"d{n}") for n in range(1, 20)]
    index.delete(["d0"])
    command("compact", copy)
    after = GradientIndex.open(copy, model=str(folder / "model"), device="cpu")
    for n, parts in enumerate(before, 1):
        found = after.objectives(f"d{n}")
        assert [text.question for part in found for text in part.texts] == [
            text.question for part in parts for text in part.texts
        ]
    assert after.document("d1").content == index.document("d1").content


def test_the_index_knows_its_task(built):
    name, folder = built
    task = CASES[name].model.task
    recorded = json.loads((folder / "index/manifests/00000001.json").read_text())
    assert json.dumps(task) in json.dumps(recorded)
    assert json.loads(command("info", folder / "index", "--json"))["task"] == task
    assert task in command("info", folder / "index")
    assert command("verify", folder / "index")
