"""Influence in memory, against dense algebra on autograd's gradients, in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from gindex.config import CURVATURES, VectorConfig
from gindex.curvature.fit import COVARIANCE_STREAM, EIGENVALUE_STREAM, label_seeds
from gindex.errors import ConfigError, NonFiniteError
from gindex.lab.attribution import Attribution, coded_scores, tracked_layers
from gindex.model.tensor_batches import TensorBatch, tensor_batches
from gindex.model.tensor_tasks import Classification, Regression, TensorTask
from gindex.vectors.codes import decode, encode

WIDE = torch.float64
DOCUMENTS, QUERIES = 12, 3
ROUNDING = {"rtol": 1e-9, "atol": 1e-11}
"""float64 sums in another order."""


def convolutional() -> tuple[TensorTask, Tensor, Tensor]:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 2, padding=1, bias=False), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Tanh(), nn.Flatten(),
        nn.Linear(18, 4),
    )  # fmt: skip
    x = torch.randn(DOCUMENTS + QUERIES, 1, 3, 3, dtype=WIDE)
    return Classification(model.double()), x, torch.randint(4, (len(x),))


def regression() -> tuple[TensorTask, Tensor, Tensor]:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(DOCUMENTS + QUERIES, 4, dtype=WIDE) @ torch.randn(4, 4, dtype=WIDE)
    return Regression(model), x, torch.randn(len(x), 2, dtype=WIDE)


class Setting:
    """A task with documents and queries, and their gradients by one backward pass each."""

    def __init__(self, make) -> None:
        torch.manual_seed(0)
        self.task, x, y = make()
        self.documents = tensor_batches(x[:DOCUMENTS], y[:DOCUMENTS], 5)
        self.queries = tensor_batches(x[DOCUMENTS:], y[DOCUMENTS:], 2)
        self.layers = tracked_layers(self.task, self.documents)

    def gradients(self, batches: list[TensorBatch], stream: int | None = None) -> dict[str, Tensor]:
        """Return G [N, O, I] by layer name; with labels sampled as the fit's pass of the stream samples them."""
        found: dict[str, list[Tensor]] = {layer.name: [] for layer in self.layers}
        self.task.model.requires_grad_(True)
        for batch in batches:
            for n, ordinal in enumerate(batch.ordinals):
                one = TensorBatch(
                    inputs=batch.inputs[n : n + 1], labels=batch.labels[n : n + 1], ordinals=np.array([ordinal])
                )
                if stream is None:
                    loss = self.task.losses(one).sum()
                else:
                    loss = self.task.sampled_losses(one, label_seeds(7, stream, one.ordinals)).sum()
                for layer in self.layers:
                    weight, *bias = torch.autograd.grad(loss, list(layer.module.parameters()), retain_graph=True)
                    found[layer.name].append(torch.cat([weight.flatten(1), *[b[:, None] for b in bias]], 1))
        self.task.model.requires_grad_(False)
        return {name: torch.stack(parts) for name, parts in found.items()}


@pytest.fixture(params=[convolutional, regression])
def setting(request) -> Setting:
    return Setting(request.param)


def test_the_layers_are_all_that_the_model_has(setting):
    assert sum(layer.parameters for layer in setting.layers) == sum(p.numel() for p in setting.task.model.parameters())


@pytest.mark.parametrize("kind", CURVATURES.names())
def test_influence_is_that_of_the_dense_curvature(setting, kind):
    """Reference: H = (Q_S x Q_A) diag(Lambda) (Q_S x Q_A)^T + damping, inverted densely, on autograd's gradients."""
    attribution = Attribution.fit(setting.task, setting.layers, setting.documents, kind, seed=7)
    got = attribution.influence(setting.queries, setting.documents, damping_scale=0.3)
    q, d = setting.gradients(setting.queries), setting.gradients(setting.documents)
    expected = torch.zeros(QUERIES, DOCUMENTS, dtype=WIDE)
    for layer in setting.layers:
        f = attribution.factors[layer.name]
        basis = torch.kron(f.Q_S.matrix(), f.Q_A.matrix())
        damping = 0.3 * f.Lambda.mean() * (kind != "identity")
        H = basis @ torch.diag(f.Lambda.flatten() + damping) @ basis.T
        expected += q[layer.name].flatten(1) @ torch.linalg.solve(H, d[layer.name].flatten(1).T)
    torch.testing.assert_close(got, expected, **ROUNDING)


def test_corrected_eigenvalues_are_second_moments_of_sampled_gradients(setting):
    attribution = Attribution.fit(setting.task, setting.layers, setting.documents, seed=7)
    for name, G in setting.gradients(setting.documents, EIGENVALUE_STREAM).items():
        f = attribution.factors[name]
        torch.testing.assert_close(f.Lambda, (f.Q_S.matrix().T @ G @ f.Q_A.matrix()).square().mean(0), **ROUNDING)


def test_bases_diagonalise_the_covariances_over_positions(setting):
    """Reference: activations and sampled output gradients of every position, by functional calls without hooks."""
    attribution = Attribution.fit(setting.task, setting.layers, setting.documents, seed=7)
    layer = setting.layers[-1]  # behind all others, so its input is what the rest of the model returns
    rest = nn.Sequential(*list(setting.task.model)[:-1])
    A, S = [], []
    for batch in setting.documents:
        a = rest(batch.inputs)
        A.append(torch.cat([a, torch.ones(len(a), 1, dtype=WIDE)], 1))
        out = setting.task.model(batch.inputs).detach().requires_grad_(True)
        setting.task.run, usual = (lambda _inputs, out=out: out), setting.task.run
        losses = setting.task.sampled_losses(batch, label_seeds(7, COVARIANCE_STREAM, batch.ordinals))
        setting.task.run = usual
        S.append(torch.autograd.grad(losses.sum(), out)[0])
    last = attribution.factors[layer.name]
    assert_diagonal(torch.cat(A), last.Q_A.matrix())
    assert_diagonal(torch.cat(S), last.Q_S.matrix())
    first, x = setting.task.model[0], torch.cat([batch.inputs for batch in setting.documents])
    if isinstance(first, nn.Conv2d):
        read = nn.functional.unfold(x, first.kernel_size, padding=first.padding).mT.flatten(0, 1)
        assert_diagonal(read, attribution.factors["0"].Q_A.matrix())


def assert_diagonal(x_MX: Tensor, basis_XX: Tensor) -> None:
    rotated = basis_XX.T @ (x_MX.T @ x_MX / len(x_MX)) @ basis_XX
    torch.testing.assert_close(rotated, torch.diag(rotated.diagonal()), rtol=0, atol=1e-10)


def test_self_influence_is_the_diagonal(setting):
    attribution = Attribution.fit(setting.task, setting.layers, setting.documents)
    influence = attribution.influence(setting.documents, setting.documents)
    got = attribution.self_influence(setting.documents)
    torch.testing.assert_close(got.double(), influence.diagonal(), rtol=1e-5, atol=0)  # norms are float32


def test_vectors_of_a_dimension_that_holds_all_score_like_exact_influence(setting):
    """With a bucket for each coordinate a count sketch loses nothing; 16 bits lose 2**-11 of a coordinate."""
    attribution = Attribution.fit(setting.task, setting.layers, setting.documents)
    path = attribution.vector_path(VectorConfig(dimension=1024, bits=16), 0.1)
    queries, documents = (attribution.vectors(path, some).vectors for some in (setting.queries, setting.documents))
    exact = attribution.influence(setting.queries, setting.documents, 0.1).float()
    tolerance = 1e-3 * float(exact.abs().max())
    torch.testing.assert_close(queries @ documents.T, exact, rtol=1e-4, atol=1e-5)
    coded = coded_scores(queries, documents, 16, path.projection.spec)
    torch.testing.assert_close(coded, exact, rtol=0, atol=tolerance)
    slices = list(path.projection.spec.slices.values())
    signs = coded_scores(queries, documents, 1, path.projection.spec)
    decoded = decode(*encode(documents, 1, slices), 1, slices)
    torch.testing.assert_close(signs, queries @ decoded.T, rtol=0, atol=tolerance)
    # (V^T V / c + mu I)^-1 V^T = V^T (V V^T / c + mu I)^-1, which is small.
    decoded = decode(*encode(documents, 8, slices), 8, slices).double()
    gram, c = decoded @ decoded.T, decoded.square().sum() / decoded.shape[1]
    inverse = torch.linalg.inv((gram / c + 0.1 * torch.eye(len(gram), dtype=WIDE)) / 1.1)
    second = coded_scores(queries, documents, 8, path.projection.spec, mu=0.1)
    expected = (queries.double() @ decoded.T @ inverse).float()
    torch.testing.assert_close(second, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_vectors_of_sampled_labels_differ_by_seed_and_not_by_batch(setting):
    attribution = Attribution.fit(setting.task, setting.layers, setting.documents)
    path = attribution.vector_path(VectorConfig(dimension=64), 0.1)
    one, other, data = (attribution.vectors(path, setting.documents, sampled).vectors for sampled in (1, 2, None))
    assert not torch.allclose(one, other) and not torch.allclose(one, data)
    single = [part for batch in setting.documents for part in tensor_batches(batch.inputs, batch.labels, 1)]
    numbered = [
        TensorBatch(inputs=part.inputs, labels=part.labels, ordinals=np.array([n])) for n, part in enumerate(single)
    ]
    again = attribution.vectors(path, numbered, 1).vectors
    torch.testing.assert_close(again, one, rtol=1e-5, atol=1e-5)  # vectors are float32


def test_a_sequence_classifier_does_not_see_padding():
    """Bidirectional attention, an attention mask, a pooled head: padding changes nothing."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3,
        initializer_range=0.5,
    )  # fmt: skip
    task = Classification(BertForSequenceClassification(config).double())
    # More documents than outputs and gradients of usual size: else rounding chooses among the eigenvectors.
    tokens, labels = torch.randint(20, (32, 5)), torch.randint(3, (32,))

    def batches(width: int) -> list[TensorBatch]:
        mask = (torch.arange(width) < 5).long().expand(32, width)
        padded = torch.cat([tokens, torch.zeros(32, width - 5, dtype=torch.long)], 1)
        return tensor_batches({"input_ids": padded, "attention_mask": mask}, labels, 4)

    results = []
    for width in (5, 8):
        documents = batches(width)
        layers = tracked_layers(task, documents)
        assert {"bert.pooler.dense", "classifier"} < {layer.name for layer in layers}
        results.append(Attribution.fit(task, layers, documents).influence(documents, documents))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-8)


def test_bad_settings_and_gradients(setting):
    with pytest.raises(ConfigError, match="curvature: expected one of"):
        Attribution.fit(setting.task, setting.layers, setting.documents, "dense")
    attribution = Attribution.fit(setting.task, setting.layers, setting.documents)
    setting.queries[0].inputs.view(-1)[0] = float("nan")
    with pytest.raises(NonFiniteError, match="document 0 or query 0"):
        attribution.influence(setting.queries, setting.documents)
