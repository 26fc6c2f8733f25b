"""A layer that no gradient comes to in a pass has a zero gradient in every use, be it the source of others or not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gindex.config import CURVATURES, VectorConfig
from gindex.lab.attribution import Attribution, tracked_layers
from gindex.lab.refine.config import CgConfig
from gindex.model.tensor_batches import TensorBatch, tensor_batches
from gindex.model.tensor_tasks import Classification
from gindex.vectors.calibration import Budget, Setting, calibrate
from gindex.vectors.influence import exact_influence, layer_influence, precondition_queries
from gindex.vectors.token_influence import token_influence

WIDE = torch.float64
MARK = 5.0
"""Documents whose first value is above this stop the first branch."""


class Branches(nn.Module):
    """Two branches that read the same activations; a batch with a marked document stops the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x_NTI: Tensor) -> Tensor:
        first = self.a(x_NTI).tanh()
        if x_NTI.max() > MARK:
            first = first.detach()
        return self.last(first + self.b(x_NTI).tanh()).sum(1)


class Made:
    """The task, batches of one document each, the second of which stops the branch, and the fitted attribution."""

    def __init__(self, kind: str = "ekfac") -> None:
        torch.manual_seed(0)
        self.task = Classification(Branches().double())
        x, y = torch.randn(6, 5, 4, dtype=WIDE), torch.tensor([0, 1, 1, 0, 1, 0])
        x[1, 0, 0] = 2 * MARK
        self.documents = tensor_batches(x, y, 1)
        usual = [batch for n, batch in enumerate(self.documents) if n != 1]
        self.layers = tracked_layers(self.task, usual)
        assert [(layer.name, layer.source) for layer in self.layers] == [("a", "a"), ("b", "a"), ("last", "last")]
        self.attribution = Attribution.fit(self.task, self.layers, self.documents, kind)

    def losses(self, batch: TensorBatch) -> Callable[[], Tensor]:
        return lambda: self.task.losses(batch)

    def gradient(self, batch: TensorBatch) -> dict[str, Tensor]:
        """Reference: G [O, I] by layer name from one backward pass; zeros where autograd has none."""
        self.task.model.requires_grad_(True).zero_grad()
        self.task.losses(batch).sum().backward()
        found = {}
        for layer in self.layers:
            weight, bias = layer.module.weight.grad, layer.module.bias.grad
            zero = torch.zeros(layer.outputs, layer.inputs, dtype=WIDE)
            found[layer.name] = zero if weight is None else torch.cat([weight, bias[:, None]], 1).clone()
        self.task.model.requires_grad_(False).zero_grad()
        return found


@pytest.fixture
def made() -> Made:
    return Made()


def expected_influence(made: Made) -> Tensor:
    """Return the influence [N, N] of the documents on one another by the factors and autograd's gradients."""
    vectors = []
    for batch in made.documents:
        G = made.gradient(batch)
        factors = made.attribution.factors
        vectors.append(torch.cat([factors[n].whiten(G[n][None], 0.1).flatten() for n in factors]))
    return torch.stack(vectors) @ torch.stack(vectors).T


@pytest.mark.parametrize("kind", CURVATURES.names())
def test_influence_is_that_of_autograds_gradients(kind):
    made = Made(kind)
    assert not made.gradient(made.documents[1])["a"].any() and made.gradient(made.documents[0])["a"].any()
    # float64, sums of few terms
    close = {"rtol": 1e-9, "atol": 1e-12}
    expected = expected_influence(made)
    torch.testing.assert_close(made.attribution.influence(made.documents, made.documents), expected, **close)
    torch.testing.assert_close(
        made.attribution.self_influence(made.documents).double(), expected.diagonal(), rtol=1e-5, atol=1e-7
    )


def test_vectors_are_those_of_the_other_layers(made):
    path = made.attribution.vector_path(VectorConfig(dimension=64, rank_fraction=1.0), 0.1)
    found = made.attribution.vectors(path, made.documents)
    expected = expected_influence(made)
    assert found.finite.all() and found.vectors[1].any()
    torch.testing.assert_close(found.self_influence.double(), expected.diagonal(), rtol=1e-5, atol=1e-7)


def test_refined_influence_takes_it(made):
    inverse = made.attribution.iterative_inverse(made.documents, 0.1, CgConfig(iterations=4))
    assert torch.isfinite(made.attribution.influence_by(inverse, made.documents, made.documents)).all()


def test_explanations_have_its_share_as_zero(made):
    factors, query, stopped = made.attribution.factors, made.documents[0], made.documents[1]
    X = precondition_queries(made.layers, factors.__getitem__, 0.1, 1, made.losses(query))
    wanted = torch.ones(1, 1, dtype=torch.bool)
    whole = exact_influence(made.layers, X, wanted, made.losses(stopped))
    by_layer = layer_influence(made.layers, X, wanted, made.losses(stopped))
    by_token = token_influence(made.layers, X, 1, made.losses(stopped))
    assert by_layer[0] == 0 and by_layer[1:].all()
    assert by_token.shape == (3, 1, 5) and not by_token[0].any()
    torch.testing.assert_close(by_layer.sum(0), whole, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(by_token.sum((0, 2))[None].to(WIDE), whole, rtol=1e-5, atol=1e-7)
    stopped_query = precondition_queries(made.layers, factors.__getitem__, 0.1, 1, made.losses(stopped))
    assert not stopped_query["a"].any() and stopped_query["b"].any()


def test_calibration_takes_it(made):
    """With exact influence's own damping and all ranks, scores without projection are exact influence."""
    three = made.documents[:3]
    batch = TensorBatch(
        inputs=torch.cat([one.inputs for one in three]),
        labels=torch.cat([one.labels for one in three]),
        ordinals=torch.arange(3).numpy(),
    )
    setting, budget = Setting(1.0, 0.1), Budget(widths=dict.fromkeys(("a", "b", "last"), 16), bits=8)
    factors = made.attribution.factors.__getitem__
    found = calibrate(made.layers, factors, 0.1, [setting], budget, [(3, 1, made.losses(batch))])
    assert found[setting].unprojected == pytest.approx(1)


def test_some_of_the_layers_without_the_one_whose_activations_they_share(made):
    """Reference: the same layers, each the source of its own activations."""
    chosen = [made.layers[1], made.layers[2]]
    assert chosen[0].source == "a"
    attribution = Attribution.fit(made.task, chosen, made.documents)
    assert [layer.source for layer in attribution.layers] == ["b", "last"]
    again = tracked_layers(made.task, [made.documents[0]], untrack=["a"])
    assert [(layer.name, layer.source) for layer in again] == [("b", "b"), ("last", "last")]
    expected = Attribution.fit(made.task, again, made.documents).influence(made.documents, made.documents)
    assert torch.equal(attribution.influence(made.documents, made.documents), expected)
