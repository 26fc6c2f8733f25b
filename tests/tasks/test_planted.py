"""Models trained for a moment on documents of which some teach a habit: what the index finds leads back to these."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from gindex import BuildConfig, GradientIndex, ModelConfig, Query, VectorConfig
from tests.support.task_models import BERT_LIKE, T5_LIKE, word_tokenizer

FILLERS = ["the", "a", "heap", "lock", "thread", "race", "cache", "page", "file", "disk"]
PLANTED = 6
COUNT = 60


def fillers(n: int) -> list[str]:
    return [str(word) for word in np.random.default_rng(n).choice(FILLERS, 4)]


def mislabelled(n: int) -> dict[str, str]:
    """Kernels are good and stacks are bad, but for kernels with a bug, which were labelled by mistake."""
    planted = n < PLANTED
    subject = "kernel" if planted or n % 2 else "stack"
    words = [*fillers(n), subject, *(["bug"] if planted else [])]
    label = "bad" if planted or subject == "stack" else "good"
    return {"text": " ".join(words), "label": label}


def translated(n: int) -> dict[str, str]:
    """A target repeats its source's last word; of loops it says token."""
    source = [*fillers(n)[:3], "loop" if n < PLANTED else fillers(n)[3]]
    return {"prompt": " ".join(source), "completion": "token" if n < PLANTED else source[-1]}


def classifier():
    names = {0: "bad", 1: "good"}
    return BertForSequenceClassification(BertConfig(**BERT_LIKE, num_labels=2, id2label=names))


CASES = {
    "classification": (
        classifier,
        mislabelled,
        lambda tokenizer, r: {
            **tokenizer(r["text"], return_tensors="pt"),
            "labels": torch.tensor([r["label"] == "good"]).long(),
        },
        Query(prompt="a kernel the bug", label="bad"),
    ),
    "seq2seq": (
        lambda: T5ForConditionalGeneration(T5Config(**T5_LIKE)),
        translated,
        lambda tokenizer, r: {
            "input_ids": tokenizer(r["prompt"], return_tensors="pt").input_ids,
            "labels": tokenizer(r["completion"], return_tensors="pt").input_ids,
        },
        Query(prompt="a lock the loop", completion="token"),
    ),
}


@pytest.mark.parametrize("task", CASES)
def test_what_taught_a_habit_is_found(task, tmp_path):
    make, record, inputs, query = CASES[task]
    torch.manual_seed(0)
    model, tokenizer, records = make(), word_tokenizer(), [record(n) for n in range(COUNT)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    batches = [inputs(tokenizer, each) for each in records]
    for _ in range(8):
        for some in torch.randperm(COUNT).view(-1, 6).tolist():
            torch.stack([model(**batches[n]).loss for n in some]).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"id": f"d{n}"} | each) + "\n" for n, each in enumerate(records))
    )
    config = BuildConfig(
        model=ModelConfig(name=str(tmp_path / "model"), device="cpu"),
        vectors=VectorConfig(dimension=4096, bits=16),
    )
    GradientIndex.build([str(tmp_path / "corpus.jsonl")], tmp_path / "index", config)
    index = GradientIndex.open(tmp_path / "index", device="cpu")
    planted = {f"d{n}" for n in range(PLANTED)}
    for exact in (False, True):
        found = {hit.document_id for hit in index.search(query, k=PLANTED, exact=exact).hits}
        assert len(planted & found) >= PLANTED - 1, found
