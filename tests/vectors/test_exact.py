"""Exact influence against inner products of whitened gradients taken by autograd."""

import copy

import pytest
import torch
from torch import Tensor

from gindex.vectors.influence import exact_influence, precondition_queries

# float64 throughout; sums over 14 layers of terms of both signs.
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def influence(setting, queries: list[int], documents: list[int], damping_scale: float) -> Tensor:
    preconditioned = precondition_queries(
        setting.layers,
        setting.factors.__getitem__,
        damping_scale,
        len(queries),
        lambda: setting.losses(queries),
    )
    everything = torch.ones(len(queries), len(documents), dtype=torch.bool)
    return exact_influence(setting.layers, preconditioned, everything, lambda: setting.losses(documents))


def test_only_what_is_wanted_is_computed(setting):
    queries, documents = [2, 0, 3], [4, 5, 6, 7]
    wanted = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    preconditioned = precondition_queries(
        setting.layers, setting.factors.__getitem__, 0.1, 3, lambda: setting.losses(queries)
    )
    got = exact_influence(setting.layers, preconditioned, wanted, lambda: setting.losses(documents))
    expected = torch.where(wanted, influence(setting, queries, documents, 0.1), 0.0)
    assert expected[wanted].all()
    torch.testing.assert_close(got, expected, **EXACT)


@pytest.mark.parametrize("damping_scale", [1e-3, 0.1, 10.0])
def test_exact_influence_matches_autograd(setting, damping_scale):
    queries, documents = [2, 0, 3], [4, 1, 5, 6, 7]
    V = setting.whitened(damping_scale)
    expected = torch.zeros(3, 5, dtype=torch.float64)
    for row, q in enumerate(queries):
        for column, d in enumerate(documents):
            expected[row, column] = sum(float((v[q] * v[d]).sum()) for v in V.values())
    got = influence(setting, queries, documents, damping_scale)
    torch.testing.assert_close(got, expected, **EXACT)
    assert not got[:, 1].any(), "a document of one token has no influence"


@pytest.mark.parametrize("formed", [1, 1000])  # the gradient of one output at a time, or of several
def test_forming_gradients_in_blocks_changes_nothing(setting, monkeypatch, formed):
    everyone = list(range(8))
    expected = influence(setting, everyone, everyone, 0.1)
    monkeypatch.setattr("gindex.vectors.influence.CACHED_BYTES", 8 * formed)
    monkeypatch.setattr("gindex.vectors.influence.LEAST_OUTPUTS", 1)
    torch.testing.assert_close(influence(setting, everyone, everyone, 0.1), expected, **EXACT)


def test_influence_on_itself_is_positive_and_symmetric(setting):
    """The sign: training on a document raises its own log-likelihood."""
    everyone = list(range(8))
    got = influence(setting, everyone, everyone, 0.1)
    torch.testing.assert_close(got, got.T, **EXACT)
    assert (got.diag()[[0, 2, 3, 4, 5, 6, 7]] > 0).all()
    assert float(torch.linalg.eigvalsh((got + got.T) / 2).min()) > -1e-9 * float(got.max())


def test_a_step_along_the_preconditioned_query_raises_the_log_likelihood_as_predicted(setting):
    """Influence is the rate at which a step of H^-1 G_d, minus the gradient, lowers the query's loss."""
    query, document, step = 2, 5, 1e-6
    predicted = float(influence(setting, [query], [document], 0.1))
    direction = precondition_queries(
        setting.layers, setting.factors.__getitem__, 0.1, 1, lambda: setting.losses([document])
    )
    losses = []
    before = copy.deepcopy(setting.model.state_dict())
    for sign in (1, -1):
        with torch.no_grad():
            for layer in setting.layers:
                X_OI = sign * step * direction[layer.name][0]
                layer.module.weight -= X_OI[:, :-1] if layer.has_bias else X_OI
                if layer.has_bias:
                    layer.module.bias -= X_OI[:, -1]
        losses.append(float(setting.losses([query])))
        setting.model.load_state_dict(before)
    # Central difference: curvature cancels; rounding is 1e-15 / 1e-6.
    assert (losses[1] - losses[0]) / (2 * step) == pytest.approx(predicted, rel=1e-4, abs=1e-6)


def test_neither_the_batch_of_queries_nor_of_documents_matters(setting):
    everyone = list(range(8))
    together = influence(setting, everyone, everyone, 0.1)
    for q in (0, 7):
        for documents in ([3], [6, 2, 1]):
            torch.testing.assert_close(influence(setting, [q], documents, 0.1), together[q : q + 1, documents], **EXACT)


def test_factors_are_loaded_once_a_layer(setting):
    loaded: list[str] = []

    def load(name: str):
        loaded.append(name)
        return setting.factors[name]

    precondition_queries(setting.layers, load, 0.1, 3, lambda: setting.losses([0, 1, 2]))
    assert sorted(loaded) == sorted(layer.name for layer in setting.layers)


def test_truncated_factors_give_the_influence_of_the_part(setting, truncate):
    factors = truncate(setting.factors, 0.5)
    V = setting.whitened(0.1)
    cut = {n: v[:, : factors[n].Lambda.shape[0], : factors[n].Lambda.shape[1]] for n, v in V.items()}
    preconditioned = precondition_queries(setting.layers, factors.__getitem__, 0.1, 1, lambda: setting.losses([0]))
    got = exact_influence(
        setting.layers, preconditioned, torch.ones(1, 2, dtype=torch.bool), lambda: setting.losses([2, 4])
    )
    expected = [sum(float((v[0] * v[d]).sum()) for v in cut.values()) for d in (2, 4)]
    torch.testing.assert_close(got[0], torch.tensor(expected, dtype=torch.float64), **EXACT)
