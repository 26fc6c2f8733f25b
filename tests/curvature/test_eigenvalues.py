"""Corrected eigenvalues against one backward per document and a dense Kronecker basis."""

import pytest
import torch

from gindex.curvature.basis import DenseBasis
from gindex.curvature.eigenvalues import EigenvalueObserver, add_squared_gradients, effective_dimension
from gindex.errors import ShapeError
from gindex.model.capture import observe

SEEDS = list(range(100, 140))


def bases_of(setting, random_basis):
    gradient = {layer.name: random_basis(layer.outputs, 2 * n) for n, layer in enumerate(setting.layers)}
    activation = {layer.source: random_basis(layer.inputs, 2 * n + 1) for n, layer in enumerate(setting.layers)}
    return activation, gradient


def dense(bases):
    return {name: DenseBasis(Q) for name, Q in bases.items()}


@pytest.mark.parametrize("kind", ["language", "classifier"])
def test_corrected_eigenvalues_match_autograd(kind, request, gradients_of, random_basis):
    """Reference: one backward per document, dense basis, no padding."""
    setting = request.getfixturevalue(kind)()
    activation, gradient = bases_of(setting, random_basis)
    observer = EigenvalueObserver(activation_bases=dense(activation), gradient_bases=dense(gradient))
    for batch in setting.batches(3):
        observer.begin()
        seeds = [SEEDS[n] for n in batch.ordinals]
        observe(setting.layers, observer, len(seeds), lambda b=batch, s=seeds: setting.task.sampled_losses(b, s))
    reference = gradients_of(setting, lambda batch: setting.task.sampled_losses(batch, [SEEDS[batch.ordinals[0]]]))
    for layer in setting.layers:
        if layer.inputs * layer.outputs > 320:  # a dense basis of the MLP layers would have 400,000 entries each
            continue
        basis = torch.kron(gradient[layer.name], activation[layer.source])
        expected = torch.zeros(layer.parameters, dtype=torch.float64)
        for G in reference[layer.name]:
            expected += (basis.T @ G.flatten()).square()
        # float64; the padded and the unpadded forward pass round differently, about 1e-13 after squaring.
        torch.testing.assert_close(observer.sums[layer.name].flatten(), expected, rtol=1e-10, atol=1e-12)


def test_the_trace_is_the_summed_squared_norm_of_the_gradients(language, gradients_of, random_basis):
    """A rotation keeps norms, so every layer is checked, the wide ones too."""
    setting = language()
    activation, gradient = bases_of(setting, random_basis)
    observer = EigenvalueObserver(activation_bases=dense(activation), gradient_bases=dense(gradient))
    observer.begin()
    batch = setting.batches(setting.count)[0]
    observe(setting.layers, observer, setting.count, lambda: setting.task.losses(batch))
    reference = gradients_of(setting, setting.task.losses)
    for layer in setting.layers:
        expected = float(reference[layer.name].square().sum())
        assert float(observer.sums[layer.name].sum()) == pytest.approx(expected, rel=1e-11)  # float64 sums


@pytest.mark.parametrize("tokens", [1, 5])
def test_pure_function_matches_the_dense_basis(tokens, random_basis, correct_eigenvalues):
    a, s = (torch.randn(6, tokens, width, dtype=torch.float64) for width in (4, 3))
    Q_A, Q_S = random_basis(4, 0), random_basis(3, 1)
    expected = torch.zeros(12, dtype=torch.float64)
    for a_TI, s_TO in zip(a, s, strict=True):
        G = sum(torch.outer(s_O, a_I) for a_I, s_O in zip(a_TI, s_TO, strict=True))
        expected += (torch.kron(Q_S, Q_A).T @ G.flatten()).square()
    got = correct_eigenvalues(a, s, Q_A, Q_S)
    torch.testing.assert_close(got.flatten(), expected, rtol=1e-12, atol=1e-12)  # float64, 12 terms an entry


def test_truncated_bases_give_the_leading_part(random_basis, correct_eigenvalues):
    a, s = torch.randn(6, 5, 4, dtype=torch.float64), torch.randn(6, 5, 3, dtype=torch.float64)
    Q_A, Q_S = random_basis(4, 0), random_basis(3, 1)
    part = correct_eigenvalues(a, s, Q_A[:, :2], Q_S[:, :1])
    torch.testing.assert_close(part, correct_eigenvalues(a, s, Q_A, Q_S)[:1, :2], rtol=1e-12, atol=1e-12)


def test_half_precision_is_squared_in_the_format_of_the_bases(correct_eigenvalues):
    """Gradients of 2**-14 square to 2**-28, below what float16 holds."""
    a, s = torch.ones(2, 1, 2, dtype=torch.float16), torch.full((2, 1, 2), 2.0**-14, dtype=torch.float16)
    got = correct_eigenvalues(a, s, torch.eye(2), torch.eye(2))
    assert got.dtype == torch.float32
    assert got.flatten().tolist() == [2.0**-27] * 4


@pytest.mark.parametrize("shape", [(5, 4, 3), (6, 3, 3)])
def test_axes_that_differ_are_refused(shape):
    with pytest.raises(ShapeError, match="expected equal document and token axes"):
        add_squared_gradients(torch.zeros(3, 2), torch.zeros(6, 4, 2), torch.zeros(shape))


def test_effective_dimension():
    Lambda = torch.tensor([[4.0, 1.0], [0.0, 1.0]])
    assert effective_dimension(Lambda, 1.0) == pytest.approx(0.8 + 0.5 + 0 + 0.5)
    assert effective_dimension(Lambda, 0.0) == 3  # a dead direction does not count
    assert effective_dimension(torch.zeros(2, 2), 0.0) == 0
