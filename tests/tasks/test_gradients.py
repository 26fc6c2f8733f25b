"""Document gradients of every task against autograd of transformers' own loss, in float64, one document at a time.

transformers averages losses over the labels of a batch; with a single document, its loss times the number of labels is
the summed loss.
"""

from functools import partial

import numpy as np
import pytest
import torch

from gindex.config import ModelConfig
from gindex.corpus.batches import pad
from gindex.corpus.labelled_texts import read_text
from gindex.corpus.labelled_words import read_words
from gindex.corpus.masking import asked_at
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.model.tracked_model import TrackedModel
from gindex.vectors.influence import document_gradients
from tests.support.task_models import TASK_MODELS, WORDS, TaskModel, reference_gradients

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Relative error by the format of transformers' loss. In float64 sums of a few hundred terms agree to 1e-12; some
classes narrow their logits to float32 for the loss."""

LENGTHS = (9, 2, 14, 5)


@pytest.fixture(scope="module", params=TASK_MODELS, ids=lambda of: of.name)
def case(request, tmp_path_factory) -> tuple[TaskModel, TrackedModel]:
    folder = request.param.save(tmp_path_factory.mktemp("model"))
    model = TrackedModel.load(ModelConfig(name=str(folder), device="cpu", dtype="float32"))
    made = request.param.make().state_dict()
    assert all(torch.equal(made[name], of) for name, of in model.loaded.model.state_dict().items())
    model.loaded.model.double()
    return request.param, model


def text(length: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng((seed, length)).choice(WORDS, length))


def labelled(model: TrackedModel, n: int, length: int) -> tuple[WeightedTokens, dict]:
    """A text, or every other time a pair, with a label; and what transformers takes."""
    labels, pair = model.loaded.kind.labels, text(4) if n % 2 else None
    read = read_text(model.loaded.tokenizer, text(length), pair, 1000)
    given = {
        "single_label_classification": n % 3,
        "multi_label_classification": [float(n % 2), 1.0, 0.0],
        "regression": [0.5 * n - 1.0] * len(labels.names),
    }[labels.kind]
    label = torch.tensor([given])
    whole = model.loaded.tokenizer(text(length), pair, return_tensors="pt")
    inputs = {name: x for name, x in whole.items() if name != "token_type_ids" or read.second is not None}
    if label.is_floating_point():
        label = label.double()
    return read.asked(labels.read(given, "label")), {**inputs, "labels": label}


def worded(model: TrackedModel, n: int, length: int) -> tuple[WeightedTokens, dict]:
    """Words, one of them of two tokens and one without a label."""
    words = [*text(length).split(), "locker"]
    labels = [(n + word) % 3 for word in range(len(words))]
    own = [None if word == 1 else label for word, label in enumerate(labels)]
    read = read_words(model.loaded.tokenizer, words, "words")
    whole = model.loaded.tokenizer(words, is_split_into_words=True, return_tensors="pt")
    found, before = [], None
    for word in whole.word_ids():  # as transformers' own example of token classification labels words
        found.append(-100 if word is None or word == before or own[word] is None else own[word])
        before = word
    inputs = {"input_ids": whole["input_ids"], "attention_mask": whole["attention_mask"]}
    return read.asked(own), {**inputs, "labels": torch.tensor([found])}


def masked(model: TrackedModel, n: int, length: int) -> tuple[WeightedTokens, dict]:
    tokenizer = model.loaded.tokenizer
    ids = np.array(tokenizer(text(length)).input_ids, np.uint32)
    places = np.arange(1, len(ids) - 1, 2)
    labels, read = np.full(len(ids), -100, np.int64), ids.astype(np.int64)
    labels[places], read[places] = ids[places], tokenizer.mask_token_id
    asked = asked_at(ids, places, tokenizer.mask_token_id)
    return asked, {"input_ids": torch.from_numpy(read)[None], "labels": torch.from_numpy(labels)[None]}


def decoded(model: TrackedModel, n: int, length: int) -> tuple[WeightedTokens, dict]:
    """Targets that are longer, shorter, or as long as their sources, which change places in a batch."""
    tokenizer = model.loaded.tokenizer
    source, target = (tokenizer(text(size, 1)).input_ids for size in (length, LENGTHS[-n - 1]))
    ids, weights = np.array([*source, *target], np.uint32), np.ones(len(source) + len(target), np.float32)
    weights[: len(source)] = 0
    given = {"input_ids": torch.tensor([source]), "labels": torch.tensor([target])}
    return WeightedTokens(ids, weights, second=len(source)), given


MAKERS = {"masked": masked, "classification": labelled, "token-classification": worded, "seq2seq": decoded}


def found_gradients(model: TrackedModel, objectives: list[Objective]):
    batch = pad(objectives, np.arange(len(objectives)))
    losses_N = model.task.losses(batch)
    G_NW, space = document_gradients(model.table.layers, len(objectives), partial(model.task.losses, batch))
    return losses_N.tolist(), space.split(G_NW)


def test_gradients_are_those_of_transformers_loss(case):
    of, model = case
    made = [MAKERS[of.task](model, n, length) for n, length in enumerate(LENGTHS)]
    objectives = [Objective((asked,)) for asked, _ in made]
    expected = [reference_gradients(model.loaded.model, model.table.layers, given) for _, given in made]
    together = found_gradients(model, objectives)
    alone = [found_gradients(model, [each]) for each in objectives]
    sizes = {layer.name: max(float(G[layer.name].norm()) for _, G in expected) for layer in model.table.layers}
    assert sum(size > 1e-6 for size in sizes.values()) > len(sizes) // 2
    for n, (loss, G) in enumerate(expected):
        tolerance = TOLERANCE[loss.dtype]
        assert together[0][n] == pytest.approx(float(loss), rel=tolerance)
        assert alone[n][0][0] == pytest.approx(float(loss), rel=tolerance)
        for name, size in sizes.items():
            for found in (together[1][name][n], alone[n][1][name][0]):
                assert float((found - G[name]).norm()) <= tolerance * max(size, 1e-3), name


def test_sampled_labels_do_not_depend_on_the_batch(case):
    of, model = case
    objectives = [Objective((MAKERS[of.task](model, n, length)[0],)) for n, length in enumerate(LENGTHS)]
    seeds = [5, 6, 7, 8]
    together = model.task.sampled_losses(pad(objectives, np.arange(4)), seeds).tolist()
    for n, each in enumerate(objectives):
        (alone,) = model.task.sampled_losses(pad([each], [0]), [seeds[n]]).tolist()
        assert together[n] == pytest.approx(alone, rel=1e-9)
    assert together != pytest.approx(model.task.sampled_losses(pad(objectives, np.arange(4)), [1, 2, 3, 4]).tolist())
