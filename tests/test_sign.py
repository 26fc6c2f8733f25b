"""Positive influence means that training on a document raises the query's log-likelihood: tried by training."""

import copy
import json

import numpy as np
import pytest
import torch

from gindex import BuildConfig, CorpusConfig, CurvatureConfig, GradientIndex, ModelConfig, VectorConfig

TOPICS = (
    "the compiler parser token loop test",
    "a kernel stack heap page cache",
    "the lock thread race bug patch",
    "a file disk page the test",
)
QUERIES, HITS = 6, 8


def topical_sentences(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    topics = [TOPICS[n] for n in generator.integers(len(TOPICS), size=count)]
    return [" ".join(generator.choice(topic.split(), size=generator.integers(6, 14))) for topic in topics]


def loss(model, tokenizer, texts: list[str]) -> torch.Tensor:
    """Mean over texts of the summed token loss in nats, one text at a time."""
    losses = []
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids])
        losses.append(model(ids, labels=ids).loss * (ids.shape[1] - 1))
    return torch.stack(losses).mean()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_small_model, small_tokenizer):
    """A small model trained on the corpus that is indexed, the corpus, and the index."""
    folder = tmp_path_factory.mktemp("sign")
    tokenizer = small_tokenizer
    model, texts = make_small_model(len(tokenizer), seed=1), topical_sentences(120, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        loss(model, tokenizer, [texts[n % len(texts)] for n in range(step * 8, step * 8 + 8)]).backward()
        optimizer.step()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    lines = [json.dumps({"id": str(number), "text": text}) for number, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    config = BuildConfig(
        corpus=CorpusConfig(max_tokens=64),
        model=ModelConfig(name=str(folder / "model"), device="cpu"),
        curvature=CurvatureConfig(fit_documents=None),
        vectors=VectorConfig(dimension=2048, rank_fraction=0.5),
    )
    return model, tokenizer, texts, GradientIndex.build([str(folder / "corpus.jsonl")], folder / "index", config)


def gain(model, tokenizer, texts: list[str], query: str) -> float:
    """Change of the query's log-likelihood, in nats, by one gradient step on texts."""
    stepped = copy.deepcopy(model).requires_grad_(True)
    before = float(loss(stepped, tokenizer, [query]).detach())
    loss(stepped, tokenizer, texts).backward()
    with torch.no_grad():
        for parameter in stepped.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
        return before - float(loss(stepped, tokenizer, [query]))


@pytest.mark.parametrize("exact", [False, True], ids=["index", "exact"])
def test_steps_on_hits_move_the_query_as_their_sign_says(trained, exact):
    model, tokenizer, texts, index = trained
    gains = []
    for query in topical_sentences(QUERIES, seed=2):
        top, bottom = (
            [texts[int(hit.document_id)] for hit in index.search(query, k=HITS, exact=exact, negative=negative).hits]
            for negative in (False, True)
        )
        random = [texts[n] for n in np.random.default_rng(0).choice(len(texts), HITS, replace=False)]
        gains.append([gain(model, tokenizer, group, query) for group in (top, random, bottom)])
    top, random, bottom = np.mean(gains, axis=0)
    assert top > 0
    assert top > random
    assert bottom < 0
