"""Gradients of weighted token losses and of preferences, against plain autograd of one document at a time."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch

from gindex.corpus.batches import batch_objectives, one_text_each
from gindex.corpus.objectives import Objective, Preference, WeightedTokens
from gindex.errors import ShapeError
from gindex.model.losses import CausalLanguageModel, preference_losses
from gindex.vectors.influence import (
    document_gradients,
    exact_influence,
    layer_influence,
    precondition_queries,
)
from gindex.vectors.norms import whitened_norms
from gindex.vectors.token_influence import token_influence


def text(generator, length, weights="any") -> WeightedTokens:
    ids = generator.integers(0, 60, length)
    found = generator.choice([0, 1, 0.5, -2], length) if weights == "any" else generator.choice([0, 1], length)
    found[0] = 0
    return WeightedTokens(ids.astype(np.uint32), found.astype(np.float32))


def objectives() -> list[Objective]:
    generator = np.random.default_rng(0)
    pair = Preference(beta=0.3, reference=-1.5, weight=-2.0)
    return [
        Objective((text(generator, 7),)),
        Objective((text(generator, 4), text(generator, 9)), pair),
        Objective.counting(generator.integers(0, 60, 5)),
        Objective((text(generator, 6, "mask"), text(generator, 6, "mask")), Preference(beta=0.1)),
        Objective((text(generator, 11),)).unweighted(),
    ]


def reference_loss(model, objective: Objective) -> torch.Tensor:
    """The loss as its definition says, a text at a time and without padding."""
    losses = []
    for own in objective.texts:
        log_p = model(torch.from_numpy(own.ids.astype(np.int64))[None], use_cache=False).logits[0].log_softmax(-1)
        terms = [float(own.weights[t]) * log_p[t - 1, int(own.ids[t])] for t in range(1, len(own))]
        losses.append(-sum(terms, start=0 * log_p.sum()))
    p = objective.preference
    if p is None:
        return sum(losses)
    chosen, rejected = losses
    margin = (rejected - chosen) - p.reference
    return p.weight * torch.log1p(torch.exp(-p.beta * margin))


def reference_gradients(setting, objective: Objective) -> dict[str, torch.Tensor]:
    model = copy.deepcopy(setting.model).requires_grad_(True)
    loss, found = reference_loss(model, objective), {}
    for layer in setting.layers:
        module = model.get_submodule(layer.name)
        parameters = [module.weight] + ([module.bias] if layer.has_bias else [])
        weight, *bias = torch.autograd.grad(loss, parameters, retain_graph=True)
        found[layer.name] = torch.cat([weight, *[b[:, None] for b in bias]], 1)
    return found


@pytest.fixture(scope="module")
def task(setting) -> CausalLanguageModel:
    return CausalLanguageModel(setting.model)


@pytest.mark.parametrize("batch_tokens", [1, 64])
def test_gradients_are_those_of_autograd(setting, task, batch_tokens):
    asked = objectives()
    for batch in batch_objectives(asked, np.arange(len(asked)), batch_tokens):
        losses = partial(task.losses, batch)
        G_NW, space = document_gradients(setting.layers, len(batch.ordinals), losses, batch.texts)
        with torch.no_grad():
            expected_loss = torch.stack([reference_loss(setting.model, asked[n]) for n in batch.ordinals])
            torch.testing.assert_close(task.losses(batch), expected_loss, rtol=1e-10, atol=1e-10)
        for row, n in enumerate(batch.ordinals):
            expected = reference_gradients(setting, asked[n])
            for name, G_NOI in space.split(G_NW).items():
                torch.testing.assert_close(G_NOI[row], expected[name], rtol=1e-9, atol=1e-10)


def test_every_measure_sees_the_texts_of_a_document_as_one(setting, task, monkeypatch):
    """Influence, its parts by layer and token, and norms, of pairs: from gradients by autograd."""
    asked = [objective for objective in objectives() if objective.preference]
    (batch,) = batch_objectives(asked, np.arange(len(asked)), 1000)
    losses, load = partial(task.losses, batch), setting.factors.__getitem__
    gradients = [reference_gradients(setting, objective) for objective in asked]
    expected_NN = torch.zeros(2, 2, dtype=torch.float64)
    for layer in setting.layers:
        f = setting.factors[layer.name]
        V = torch.stack([f.Q_S.matrix().T @ G[layer.name] @ f.Q_A.matrix() for G in gradients])
        V = (V / (f.Lambda + 0.1 * f.Lambda.mean()).sqrt()).flatten(1)
        expected_NN += V @ V.T
    X = precondition_queries(setting.layers, load, 0.1, 2, losses, batch.texts)
    everything = torch.ones(2, 2, dtype=torch.bool)
    found = exact_influence(setting.layers, X, everything, losses, batch.texts)
    torch.testing.assert_close(found, expected_NN, rtol=1e-9, atol=1e-9)
    by_layer = layer_influence(setting.layers, X, everything, losses, batch.texts)
    torch.testing.assert_close(by_layer.sum(0), expected_NN, rtol=1e-9, atol=1e-9)
    first = {name: X_QOI[:1] for name, X_QOI in X.items()}
    by_token_LNT = token_influence(setting.layers, first, 2, losses, batch.texts)
    assert by_token_LNT.shape[2] == batch.mask.shape[1]
    torch.testing.assert_close(by_token_LNT.sum((0, 2)), expected_NN[0], rtol=1e-5, atol=1e-5)  # float32 by layer
    assert not by_token_LNT[:, torch.from_numpy(~batch.mask)].any(), "padding has no influence"
    norms = whitened_norms(setting.layers, load, 0.1, 2, losses, batch.texts).double()
    torch.testing.assert_close(norms.square(), expected_NN.diagonal(), rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("gindex.vectors.norms.FORMED_VALUES", 1)  # one document at once
    apart = whitened_norms(setting.layers, load, 0.1, 2, losses, batch.texts).double()
    torch.testing.assert_close(apart, norms, rtol=1e-5, atol=1e-5)


def test_a_sum_of_texts_is_preconditioned_as_one_query(setting, task):
    generator = np.random.default_rng(1)
    asked = [Objective(tuple(text(generator, n) for n in (3, 8, 5))), Objective((text(generator, 6),))]
    texts, owners = one_text_each(asked)
    total: dict[str, torch.Tensor] = {}
    for batch in batch_objectives(texts, np.arange(len(texts)), 12):
        found = precondition_queries(
            setting.layers,
            setting.factors.__getitem__,
            0.1,
            2,
            partial(task.losses, batch),
            batch.texts,
            torch.from_numpy(owners[batch.ordinals]),
        )
        total = {name: total.get(name, 0) + X for name, X in found.items()}
    for n, objective in enumerate(asked):
        G = reference_gradients(setting, objective)
        for layer in setting.layers:
            f = setting.factors[layer.name]
            V = (f.Q_S.matrix().T @ G[layer.name] @ f.Q_A.matrix()) / (f.Lambda + 0.1 * f.Lambda.mean())
            torch.testing.assert_close(
                total[layer.name][n], f.Q_S.matrix() @ V @ f.Q_A.matrix().T, rtol=1e-9, atol=1e-10
            )


def test_dpo_weighs_by_how_wrong_the_model_is():
    """The gradient of -log sigmoid(beta m) in m is -beta sigmoid(-beta m)."""
    losses = torch.tensor([[2.0, 5.0]], dtype=torch.float64, requires_grad=True)
    found = preference_losses(losses, [Preference(beta=0.5, reference=1.0, weight=3.0)])
    assert float(found.detach()) == pytest.approx(3 * math.log1p(math.exp(-0.5 * 2.0)), rel=1e-12)
    found.sum().backward()
    share = 3 * 0.5 / (1 + math.exp(0.5 * 2.0))
    assert losses.grad.tolist() == [pytest.approx([share, -share], rel=1e-12)]


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (lambda: WeightedTokens(np.array([1, 2], np.uint32), np.ones(2, np.float32)), "0 for the first token"),
        (lambda: WeightedTokens(np.array([1, 2], np.uint32), np.zeros(3, np.float32)), "one per token"),
        (lambda: Objective(()), "at least one text"),
        (lambda: Objective((WeightedTokens.counting([1, 2]),), Preference(beta=1)), "a chosen and a rejected"),
    ],
)
def test_what_is_no_objective(made, found):
    with pytest.raises(ShapeError, match=found):
        made()


def test_a_window_has_tokens_that_count():
    ids = np.arange(20)
    assert Objective.counting(ids).window(8).texts[0].ids.tolist() == list(range(8))
    late = Objective.counting(ids, 15).window(8)
    assert late.texts[0].ids.tolist() == list(range(11, 19)) and late.targets == 4
    last = Objective.counting(ids, 19).window(8)
    assert last.texts[0].ids.tolist() == list(range(12, 20)) and last.targets == 1
