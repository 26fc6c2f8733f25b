"""Factors of experts: their own or shared, by their tokens, against sums over the tokens that autograd sees."""

import numpy as np
import pytest
import torch
from families import FAMILIES

from gindex.corpus.batches import pad
from gindex.corpus.objectives import Objective
from gindex.curvature.eigenvalues import add_squared_gradients
from gindex.curvature.experts import ENOUGH_TOKENS, expected_sharing, settled_sharing
from gindex.curvature.fit import COVARIANCE_STREAM, EIGENVALUE_STREAM, fit_covariances, label_seeds
from gindex.curvature.kinds import EKFAC, fit_in_memory
from gindex.model.capture import observe
from gindex.model.losses import CausalLanguageModel
from gindex.model.observer import Observer
from gindex.model.tracked_model import _probe
from gindex.model.tracking import track_layers
from gindex.progress import Silent
from gindex.vectors.influence import document_gradients

SEED = 3


class Tokens(Observer):
    """Keeps each layer's activations and gradients of real tokens, [M, I] and [M, O]."""

    def __init__(self, lengths):
        self.lengths, self.positions, self.seen = lengths, {}, {}

    def routed(self, layer, positions_NT):
        self.positions[layer.name] = positions_NT

    def activations(self, layer, a_NTI):
        return a_NTI

    def gradients(self, layer, kept, g_NTO):
        places_T = torch.arange(g_NTO.shape[1]).expand(len(g_NTO), -1)
        places_NT = self.positions.get(layer.name, places_T)
        real_NT = (places_NT >= 0) & (places_NT < self.lengths[:, None])
        self.seen[layer.name] = kept[real_NT], g_NTO[real_NT]


@pytest.fixture(scope="module")
def mixture():
    """A Mixtral of 4 experts in float64, its layers, and a batch of documents of 5 to 20 tokens."""
    (family,) = (family for family in FAMILIES if family.name == "Mixtral")
    model = family.model().double()
    model.set_experts_implementation("eager")
    task = CausalLanguageModel(model)
    layers = track_layers(model, lambda count: task.logits(_probe(task, count))).layers
    generator = np.random.default_rng(0)
    parts = [Objective.counting(generator.integers(1, 250, n).astype(np.uint32)) for n in (5, 20, 12)]
    return task, layers, pad(parts, np.arange(len(parts)))


@pytest.fixture(scope="module")
def seen(mixture):
    """What the layers read and what came back in the first pass of a fit."""
    task, layers, batch = mixture
    observer = Tokens(torch.from_numpy(batch.mask.sum(1)))
    seeds = label_seeds(SEED, COVARIANCE_STREAM, batch.ordinals)
    observe(layers, observer, len(seeds), lambda: task.sampled_losses(batch, seeds))
    return observer.seen


def test_covariances_of_experts_are_of_their_own_real_tokens(mixture, seen):
    task, layers, batch = mixture
    found = fit_covariances(layers, task, [batch], SEED, torch.float64)
    experts = [layer for layer in layers if layer.expert is not None]
    for layer in experts:
        a_MI, s_MO = seen[layer.name]
        assert int(found.gradient_moments[layer.name].tokens) == len(a_MI)
        for moment, x_MX in ((found.activation_moments, a_MI), (found.gradient_moments, s_MO)):
            expected = x_MX.T @ x_MX / max(1, len(x_MX))
            torch.testing.assert_close(moment[layer.name].mean(), expected, rtol=1e-12, atol=1e-14)
    both = [sum(len(seen[e.name][0]) for e in experts if e.whole == whole) for whole in {e.whole for e in experts}]
    assert both == [2 * int(batch.mask.sum())] * 4  # two experts a token, padding left out


def test_experts_of_too_few_tokens_share_the_covariance_of_all(mixture, seen):
    """The rule is by each expert's tokens; whoever has enough keeps its own."""
    task, layers, batch = mixture
    found = fit_covariances(layers, task, [batch], SEED, torch.float64)
    counts = {layer.name: int(found.gradient_moments[layer.name].tokens) for layer in layers}
    settled = settled_sharing(layers, found)
    for before, layer in zip(layers, settled, strict=True):
        enough = counts[layer.name] >= ENOUGH_TOKENS * max(layer.inputs, layer.outputs)
        if layer.expert is None or enough:
            assert layer is before and layer.factors == layer.name
            continue
        assert layer.source == layer.factors == layer.whole
        a_MI = torch.cat([seen[other.name][0] for other in layers if other.whole == layer.whole])
        mean = found.activation_moments[layer.source].mean()
        torch.testing.assert_close(mean, a_MI.T @ a_MI / len(a_MI), rtol=1e-12, atol=1e-14)
        assert layer.name not in found.activation_moments and layer.name not in found.gradient_moments
    assert any(layer.shares_factors for layer in settled)


def test_sharing_from_the_start_is_sharing_afterwards(mixture):
    task, layers, batch = mixture
    shared = expected_sharing(layers, 10)
    assert all(layer.shares_factors for layer in shared if layer.expert is not None)
    assert not any(layer.shares_factors for layer in expected_sharing(layers, 10**6))
    found, expected = (fit_covariances(of, task, [batch], SEED, torch.float64) for of in (shared, layers))
    settled = settled_sharing(layers, expected), settled_sharing(shared, found)
    assert [layer.factors for layer in settled[0]] == [layer.factors for layer in settled[1]]
    for side in ("activation_moments", "gradient_moments"):
        for name, moment in getattr(expected, side).items():
            torch.testing.assert_close(getattr(found, side)[name].mean(), moment.mean(), rtol=1e-11, atol=1e-14)


def test_shared_eigenvalues_are_the_mean_over_experts_and_documents(mixture):
    task, layers, batch = mixture
    shared = expected_sharing(layers, 10)
    factors = fit_in_memory(shared, task, [batch], EKFAC, SEED, Silent())
    seeds = label_seeds(SEED, EIGENVALUE_STREAM, batch.ordinals)
    G_NW, space = document_gradients(layers, len(seeds), lambda: task.sampled_losses(batch, seeds))
    gradients = space.split(G_NW)
    for whole in {layer.whole for layer in shared if layer.expert is not None}:
        experts = [factors[layer.name] for layer in shared if layer.whole == whole]
        assert len({id(of.Lambda) for of in experts}) == 1
        names = [layer.name for layer in shared if layer.whole == whole]
        squares = torch.stack([experts[0].rotate(gradients[name]).square() for name in names])
        torch.testing.assert_close(experts[0].Lambda, squares.mean((0, 1)), rtol=1e-9, atol=1e-15)
        assert experts[0].mean_eigenvalue == pytest.approx(float(experts[0].Lambda.mean()), rel=1e-12)


def test_an_expert_without_a_token_is_whitened_by_the_damping_of_its_weight(mixture, caplog):
    """Where all tokens go to two of four experts, the others have no curvature, and that is said."""
    task, layers, _ = mixture
    generator = np.random.default_rng(1)
    parts = [Objective.counting(generator.integers(1, 250, 30).astype(np.uint32)) for _ in range(4)]
    batch = pad(parts, np.arange(len(parts)))
    gates = [module for name, module in task.model.named_modules() if name.endswith("mlp.gate")]
    handles = [
        gate.register_forward_hook(lambda _m, _a, out: (out[0], out[1], out[2] * 0 + torch.tensor([0, 1])))
        for gate in gates
    ]
    try:
        factors = fit_in_memory(layers, task, [batch], EKFAC, SEED, Silent())
    finally:
        for handle in handles:
            handle.remove()
    empty = [layer for layer in layers if layer.expert in (2, 3)]
    assert f"{len(empty)} of {2 * len(empty)} experts have no curvature" in caplog.text
    for layer in empty:
        of = factors[layer.name]
        assert not of.Lambda.any() and of.mean_eigenvalue > 0
        G_NOI = torch.randn(2, layer.outputs, layer.inputs, dtype=torch.float64)
        norms = of.whiten(G_NOI, 0.1).norm(dim=(1, 2)) * (0.1 * of.mean_eigenvalue) ** 0.5
        torch.testing.assert_close(norms, G_NOI.norm(dim=(1, 2)), rtol=1e-10, atol=0)


def test_documents_without_a_token_at_an_expert_count_in_its_mean():
    total_OI = torch.zeros(2, 3, dtype=torch.float64)
    a_NTI, s_NTO = torch.randn(2, 4, 3).double(), torch.randn(2, 4, 2).double()
    a_NTI[1], s_NTO[1] = 0, 0
    add_squared_gradients(total_OI, a_NTI, s_NTO)
    torch.testing.assert_close(total_OI, (s_NTO[0].T @ a_NTI[0]).square())
