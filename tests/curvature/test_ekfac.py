"""Whitening and preconditioning against dense matrices, and EK-FAC against the exact Fisher matrix."""

import pytest
import torch
from torch import Tensor

from gindex.curvature.basis import DenseBasis
from gindex.curvature.covariance import CovarianceObserver
from gindex.curvature.eigenbasis import eigenbasis
from gindex.curvature.ekfac import LayerFactors, rotated_gradients, whitening_scale
from gindex.model.capture import append_one, observe
from gindex.model.observer import Observer

INPUTS, OUTPUTS, DAMPING_SCALE = 4, 3, 0.1

# float64; the dense solve loses the condition number, about 1e3 here.
DENSE = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture
def factors(random_basis) -> LayerFactors:
    Lambda = torch.rand(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    return LayerFactors(
        Q_A=DenseBasis(random_basis(INPUTS, 1)),
        Q_S=DenseBasis(random_basis(OUTPUTS, 2)),
        Lambda=Lambda,
        mean_eigenvalue=float(Lambda.mean()),
    )


@pytest.fixture
def gradients() -> Tensor:
    return torch.randn(5, OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def dense(factors: LayerFactors, damping_scale: float) -> Tensor:
    basis = torch.kron(factors.Q_S.matrix(), factors.Q_A.matrix())
    return basis @ (factors.Lambda.flatten() + damping_scale * factors.mean_eigenvalue).diag() @ basis.T


def test_whitened_norm_is_the_inverse_quadratic_form(factors, gradients):
    matrix, V = dense(factors, DAMPING_SCALE), factors.whiten(gradients, DAMPING_SCALE)
    for G, v in zip(gradients, V, strict=True):
        expected = G.flatten() @ torch.linalg.solve(matrix, G.flatten())
        torch.testing.assert_close(v.square().sum(), expected, **DENSE)


def test_whitened_inner_products_are_influence(factors, gradients):
    V = factors.whiten(gradients, DAMPING_SCALE).flatten(1)
    G = gradients.flatten(1)
    expected = G @ torch.linalg.solve(dense(factors, DAMPING_SCALE), G.T)
    torch.testing.assert_close(V @ V.T, expected, **DENSE)


@pytest.mark.parametrize("tokens", [1, 2, 40])  # few rotate the tokens, many the gradient
@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_rotated_gradients_are_the_rotated_sum_of_outer_products(factors, tokens, kept):
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(3, tokens, INPUTS, generator=generator, dtype=torch.float64)
    g = torch.randn(3, tokens, OUTPUTS, generator=generator, dtype=torch.float64)
    Q_A, Q_S = factors.Q_A.leading(round(kept * INPUTS)), factors.Q_S.leading(round(kept * OUTPUTS))
    got = rotated_gradients(a, g, Q_A, Q_S)
    for document in range(3):
        G = sum(torch.outer(g[document, t], a[document, t]) for t in range(tokens))
        torch.testing.assert_close(got[document], Q_S.matrix().T @ G @ Q_A.matrix(), **DENSE)


def test_precondition_is_the_dense_solve(factors, gradients):
    matrix = dense(factors, DAMPING_SCALE)
    for G, X in zip(gradients, factors.precondition(factors.rotate(gradients), DAMPING_SCALE), strict=True):
        torch.testing.assert_close(X.flatten(), torch.linalg.solve(matrix, G.flatten()), **DENSE)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 0.1, 10.0])
def test_damping_scales_the_mean(factors, gradients, scale):
    assert factors.damping(scale) == scale * float(factors.Lambda.mean())
    expected = factors.rotate(gradients) / (factors.Lambda + scale * factors.Lambda.mean()).sqrt()
    torch.testing.assert_close(factors.whiten(gradients, scale), expected, rtol=1e-13, atol=0)  # two roundings


def test_truncation_keeps_the_leading_block_and_the_untruncated_mean(factors, gradients):
    leading = LayerFactors(
        Q_A=factors.Q_A.leading(2),
        Q_S=factors.Q_S.leading(1),
        Lambda=factors.Lambda[:1, :2],
        mean_eigenvalue=factors.mean_eigenvalue,
    )
    assert leading.damping(0.1) == 0.1 * float(factors.Lambda.mean()) != 0.1 * float(leading.Lambda.mean())
    cut = factors.whiten(gradients, DAMPING_SCALE)[:, :1, :2]
    torch.testing.assert_close(leading.whiten(gradients, DAMPING_SCALE), cut, rtol=1e-12, atol=1e-13)


def test_a_dead_layer_gives_zeros(random_basis, gradients):
    dead = LayerFactors(
        Q_A=DenseBasis(random_basis(INPUTS, 1)),
        Q_S=DenseBasis(random_basis(OUTPUTS, 2)),
        Lambda=torch.zeros(OUTPUTS, INPUTS, dtype=torch.float64),
        mean_eigenvalue=0.0,
    )
    for result in (dead.whiten(gradients, DAMPING_SCALE), dead.precondition(dead.rotate(gradients), DAMPING_SCALE)):
        assert not result.any()  # and no NaN, which would be true


def test_dead_directions_without_damping_carry_nothing():
    scale = whitening_scale(torch.tensor([4.0, 0.0, 0.25]), 0.0)
    assert scale.tolist() == [0.5, 0.0, 2.0]


def exact_moments(setting) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]], dict[str, list[Tensor]]]:
    """Return, layer by layer, the exact Fisher block, (A, S) and the gradients [V, N, O, I] times sqrt(p).

    Every class takes its turn as the label, weighted by its probability, so nothing is sampled.
    """
    model = setting.task.model
    batch = setting.batches(setting.count)[0]
    p_NV = model(batch.inputs).softmax(-1)
    weighted: dict[str, list[tuple[Tensor, Tensor]]] = {layer.name: [] for layer in setting.layers}

    class Pairs(Observer):
        def activations(self, layer, a_NTI):
            return append_one(a_NTI, layer)

        def gradients(self, layer, kept, g_NTO):
            weighted[layer.name].append((kept, g_NTO * p_NV[:, label, None, None].sqrt()))

    for label in range(p_NV.shape[1]):
        observe(setting.layers, Pairs(), setting.count, lambda y=label: -model(batch.inputs).log_softmax(-1)[:, y])
    fisher, gradients = {}, {}
    for layer in setting.layers:
        total = torch.zeros(layer.parameters, layer.parameters, dtype=torch.float64)
        for a_N1I, s_N1O in weighted[layer.name]:
            for a, s in zip(a_N1I[:, 0], s_N1O[:, 0], strict=True):
                G = torch.outer(s, a).flatten()
                total += torch.outer(G, G)
        fisher[layer.name], gradients[layer.name] = total / setting.count, weighted[layer.name]
    covariances = {}
    for name, pairs in gradients.items():
        A = pairs[0][0][:, 0].T @ pairs[0][0][:, 0] / setting.count
        S = sum(s[:, 0].T @ s[:, 0] for _, s in pairs) / setting.count
        covariances[name] = (A, S)
    return fisher, covariances, gradients


def test_ekfac_is_closer_to_the_exact_fisher_than_kfac(classifier, correct_eigenvalues):
    """In the same basis no diagonal is closer than the corrected eigenvalues (George et al. 2018, section 3)."""
    setting = classifier(count=60)
    fisher, covariances, pairs = exact_moments(setting)
    for layer in setting.layers:
        A, S = covariances[layer.name]
        (values_A, Q_A), (values_S, Q_S) = eigenbasis(A, "A"), eigenbasis(S, "S")
        Lambda = sum(correct_eigenvalues(a, s, Q_A, Q_S) for a, s in pairs[layer.name]) / setting.count
        basis, exact = torch.kron(Q_S, Q_A), fisher[layer.name]
        errors = {
            name: float((exact - basis @ diagonal.flatten().diag() @ basis.T).norm() / exact.norm())
            for name, diagonal in (("K-FAC", torch.outer(values_S, values_A)), ("EK-FAC", Lambda))
        }
        assert errors["EK-FAC"] < 0.98 * errors["K-FAC"], errors
        # The corrected eigenvalues are the diagonal of the exact matrix in the basis. float64, 60 * 4 terms.
        torch.testing.assert_close(Lambda.flatten(), (basis.T @ exact @ basis).diag(), rtol=1e-10, atol=1e-13)


def test_ekfac_is_exact_where_pseudo_gradients_do_not_depend_on_activations(random_basis, correct_eigenvalues):
    """Least squares with unit noise, one linear layer: the Fisher matrix is I x E[a a^T], a Kronecker product."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 1, INPUTS, generator=generator, dtype=torch.float64)
    A = a[:, 0].T @ a[:, 0] / 30
    _, Q_A = eigenbasis(A, "A")
    Q_S = random_basis(OUTPUTS, 0)  # S = I has no basis of its own
    # s = e_o for each output o in turn: the exact expectation over the noise.
    Lambda = (
        sum(
            correct_eigenvalues(a, torch.eye(OUTPUTS, dtype=torch.float64)[o].expand(30, 1, -1), Q_A, Q_S)
            for o in range(OUTPUTS)
        )
        / 30
    )
    basis = torch.kron(Q_S, Q_A)
    expected = torch.kron(torch.eye(OUTPUTS, dtype=torch.float64), A)
    # float64; Lambda is summed over 90 gradients.
    torch.testing.assert_close(basis @ Lambda.flatten().diag() @ basis.T, expected, rtol=1e-12, atol=1e-12)


def test_covariances_of_the_observer_are_those_of_the_reference(classifier):
    setting = classifier(count=20)
    _, covariances, pairs = exact_moments(setting)
    for layer in setting.layers:
        observer = CovarianceObserver(dtype=torch.float64)
        observer.begin(torch.ones(20, 1, dtype=torch.bool))
        a, _ = pairs[layer.name][0]
        kept = observer.activations(layer, a[..., :-1] if layer.has_bias else a)
        for number, (_, s) in enumerate(pairs[layer.name]):
            observer.gradients(layer, None if number else kept, s)
        if kept is not None:
            A = observer.activation_moments[layer.source].totals[0]
            torch.testing.assert_close(A / 20, covariances[layer.name][0])
        S = observer.gradient_moments[layer.name].totals[0]
        torch.testing.assert_close(S / 20, covariances[layer.name][1])
