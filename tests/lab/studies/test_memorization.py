"""Verbatim completion, against what the model generates."""

import numpy as np
import pytest
import torch

from gindex.corpus.objectives import Objective
from gindex.lab.statistics import spearman
from gindex.lab.studies.config import MemorizationConfig
from gindex.lab.studies.material import Material
from gindex.lab.studies.memorization import completion, verbatim_tokens
from tests.support.objectives import ids_of


def test_verbatim_tokens_end_at_the_first_wrong_one():
    right = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]], bool)
    assert verbatim_tokens(right).tolist() == [2, 0, 4]


def test_completion_is_what_the_model_generates(index):
    """Reference: greedy generation token by token, and the loss from the logits of one document at a time."""
    material, config = Material(index), MemorizationConfig(prompt_tokens=2, completion_tokens=5)
    lengths = material.table.part_lengths()
    parts = material.first_parts()
    parts = parts[lengths[parts] >= 7][:12]
    # A model that knows nothing is never right: its own most likely words stand in for those of half the documents.
    model = index.model.tracked.loaded.model
    tokens = [ids_of(own)[:7].astype(np.int64) for own in material.table.objectives(parts)]
    generated = []
    for own in tokens:
        ids = own[:2].tolist()
        for _ in range(5):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        generated.append(ids)
    documents = [
        np.array(ids if n % 2 else own, np.uint32) for n, (ids, own) in enumerate(zip(generated, tokens, strict=True))
    ]
    documents[1][4] = (documents[1][4] + 1) % 300  # right up to here

    class Table:
        def objectives(self, _parts):
            return [Objective.counting(ids) for ids in documents]

    material.table = Table()
    right_NC, losses = completion(material, parts, config)
    for n, own in enumerate(documents):
        matched = next((m for m in range(5) if own[2 + m] != generated[n][2 + m]), 5)
        assert verbatim_tokens(right_NC)[n] == matched
        with torch.no_grad():
            logits = model(torch.from_numpy(own.astype(np.int64))[None]).logits[0, 1:6].double()
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(own[2:].astype(np.int64)))
        assert losses[n] == pytest.approx(float(expected), rel=1e-4)
    assert verbatim_tokens(right_NC)[1] == 2 and (verbatim_tokens(right_NC)[3::2] == 5).all()


def test_report(study, built, index):
    record, _ = study("memorization", built, "--prompt-tokens", "2", "--completion-tokens", "4")
    numbers, material = record["numbers"], Material(index)
    lengths = material.table.part_lengths()
    parts = material.first_parts()
    parts = parts[lengths[parts] >= 6]
    assert numbers["documents"] == len(parts) == sum(group["documents"] for group in numbers["by_self_influence"])
    per_token = index.snapshot.vectors.self_influence(parts) / (lengths[parts] - 1)
    _, losses = completion(material, parts, MemorizationConfig(prompt_tokens=2, completion_tokens=4))
    assert numbers["self_influence_and_loss"]["mean"] == pytest.approx(spearman(per_token, losses))


def test_too_few_documents(run, built):
    result = run("study", "memorization", built, "--prompt-tokens", "30", "--device", "cpu")
    assert result.exit_code == 2 and "expected at least 20 documents of 54 tokens or more, found" in result.stderr
