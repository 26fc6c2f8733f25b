"""What models of each task are asked: which tokens they read, and which labels they are asked for."""

import numpy as np
import pytest
import torch

from gindex.config import ModelConfig
from gindex.model.load import load_model
from gindex.queries.query import Query
from gindex.queries.tokens import tokenize_query
from tests.support.task_models import TASK_MODELS

MODEL = {of.name: of for of in TASK_MODELS}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    found = {}

    def load(name):
        if name not in found:
            folder = MODEL[name].save(tmp_path_factory.mktemp("model"))
            found[name] = load_model(ModelConfig(name=str(folder), device="cpu"))
        return found[name]

    return load


def asked(loaded, **query):
    """The texts of a query: tokens with what is asked of each, and its weight."""
    tokens = tokenize_query(Query(**query), loaded)
    return tokens, [shown(loaded.tokenizer, text) for text in tokens.objective.texts]


def shown(tokenizer, text):
    labels = iter([] if text.labels is None else text.labels.tolist())
    read = tokenizer.convert_ids_to_tokens(text.ids.tolist())
    return [(token, next(labels, None) if w else None, float(w)) for token, w in zip(read, text.weights, strict=True)]


def counted(texts):
    return [(n, label, weight) for n, (_, label, weight) in enumerate(texts) if weight]


def number(loaded, token):
    return float(loaded.tokenizer.convert_tokens_to_ids(token))


def test_a_completion_fills_masks(loaded):
    model = loaded("BERT")
    _, (text,) = asked(model, prompt="the [MASK] of [MASK]", completion="stack heap")
    assert [token for token, _, _ in text] == ["[CLS]", "the", "[MASK]", "[UNK]", "[MASK]", "[SEP]"]
    assert counted(text) == [(2, [number(model, "stack")], 1), (4, [number(model, "heap")], 1)]


def test_a_span_is_masked(loaded):
    model = loaded("BERT")
    _, (text,) = asked(model, prompt="the locker a", span=(5, 8))
    assert [token for token, _, _ in text] == ["[CLS]", "the", "[MASK]", "##er", "a", "[SEP]"]
    _, (whole,) = asked(model, prompt="the locker a", span=(4, 10))
    assert counted(whole) == [(2, [number(model, "lock")], 1), (3, [number(model, "##er")], 1)]


def test_a_contrast_is_another_filling(loaded):
    model = loaded("BERT")
    tokens, texts = asked(model, prompt="the [MASK]", completion="stack", contrast="heap", weight=2)
    assert [counted(text) for text in texts] == [[(2, [number(model, "stack")], 2)], [(2, [number(model, "heap")], -2)]]
    assert tokens.words == "the [MASK]stack"


def test_a_set_asks_for_labels_of_one_text(loaded):
    model = loaded("BERT, one class")
    queries = [Query(prompt="the stack", label=label) for label in ("good", "bad", "good")]
    _, texts = asked(model, queries=queries, aggregate="sum")
    assert [counted(text) for text in texts] == [[(0, [1.0], 2)], [(0, [0.0], 1)]]


@pytest.mark.parametrize("given", [{"label": "good"}, {"completion": "good"}, {"label": 1}, {"label": "1"}])
def test_a_label_by_name_or_number(given, loaded):
    _, (text,) = asked(loaded("BERT, one class"), prompt="the stack", **given)
    assert counted(text) == [(0, [1.0], 1)] and [token for token, _, _ in text] == ["[CLS]", "the", "stack", "[SEP]"]


def test_several_labels(loaded):
    for given in ("bad, neither", ["bad", 2], [1, 0, 1], [1.0, 0.0, 1.0]):
        _, (text,) = asked(loaded("BERT, several classes"), prompt="the stack", label=given)
        assert counted(text) == [(0, [1.0, 0.0, 1.0], 1)]
    _, (none,) = asked(loaded("BERT, several classes"), prompt="the stack", label=[])
    assert counted(none) == [(0, [0.0, 0.0, 0.0], 1)]


def test_values(loaded):
    assert counted(asked(loaded("RoBERTa, a value"), prompt="the stack", label=-0.5)[1][0]) == [(0, [-0.5], 1)]
    assert counted(asked(loaded("BERT, values"), prompt="the stack", label="1.5,2")[1][0]) == [(0, [1.5, 2.0], 1)]


@pytest.mark.parametrize("name", ["BERT, one class", "BERT, several classes", "BERT, values", "Llama, last token"])
def test_without_a_label_it_is_the_models_own(name, loaded):
    model = loaded(name)
    tokens, (text,) = asked(model, prompt="the stack a lock")
    with torch.no_grad():
        (outputs,) = model.model(**model.tokenizer("the stack a lock", return_tensors="pt")).logits
    expected = {
        "single_label_classification": lambda: [float(outputs.argmax())],
        "multi_label_classification": lambda: (outputs > 0).float().tolist(),
        "regression": outputs.tolist,
    }[model.kind.labels.kind]()
    assert counted(text)[0][1] == pytest.approx(expected, rel=1e-5)
    assert tokens.notes[0].startswith("the label is what the model says: ")


def test_pairs_are_told_apart_where_the_model_does(loaded):
    (bert,) = tokenize_query(Query(prompt="the", pair="a", label=0), loaded("BERT, one class")).objective.texts
    assert bert.second == 3 and len(bert) == 5
    (other,) = tokenize_query(Query(prompt="the", pair="a", label=0), loaded("DistilBERT, one class")).objective.texts
    assert other.second is None and len(other) == 5


def test_words_and_their_labels(loaded):
    model = loaded("BERT, words")
    _, (text,) = asked(model, prompt="the locker  a", label=["O", "B-X", "I-X"])
    assert counted(text) == [(1, [0.0], 1), (2, [1.0], 1), (4, [2.0], 1)]
    _, (some,) = asked(model, prompt="the locker  a", label="I-X", span=(0, 5))
    assert counted(some) == [(1, [2.0], 1), (2, [2.0], 1)]
    tokens, (own,) = asked(model, prompt="the locker  a", span=(4, 13))
    with torch.no_grad():
        (logits,) = model.model(**model.tokenizer("the locker a", return_tensors="pt")).logits
    assert counted(own) == [(n, [float(logits[n].argmax())], 1) for n in (2, 4)]
    assert "locker " in tokens.notes[0] and "the " not in tokens.notes[0].partition(": ")[2]


def test_a_decoder_is_asked_for_the_completion_alone(loaded):
    model = loaded("T5")
    (text,) = tokenize_query(Query(prompt="the stack", completion="a heap"), model).objective.texts
    assert text.is_decoded and text.second == 4
    assert model.tokenizer.convert_ids_to_tokens(text.ids.tolist())[4:] == ["[CLS]", "a", "heap", "[SEP]"]
    assert np.flatnonzero(text.weights).tolist() == [5, 6]
    (part,) = tokenize_query(Query(prompt="the stack", completion="a heap", span=(2, 6)), model).objective.texts
    assert np.flatnonzero(part.weights).tolist() == [6]


def test_what_is_too_long_is_cut_where_that_is_asked_for(loaded):
    words = "the " * 100
    for name, query in {
        "BERT, one class": Query(prompt=words, label=0),
        "BART": Query(prompt=words, completion="a"),
    }.items():
        tokens = tokenize_query(query, loaded(name), long_queries="cut")
        assert "left out" in tokens.notes[0] and len(tokens.objective.texts[0]) <= 64 + 3
