"""Eigenbases rebuild their covariance, in order, and refuse what is not finite by name."""

import pytest
import torch
from torch import Tensor

from gindex.curvature.eigenbasis import eigenbasis
from gindex.errors import NonFiniteError


def covariance(size: int, tokens: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(tokens, size, generator=generator, dtype=torch.float64)
    x *= torch.logspace(0, -6, size, dtype=torch.float64)  # eigenvalues over 12 decades
    return (x.T @ x / tokens).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "tokens"), [(1, 5), (12, 100), (12, 3), (40, 7)], ids=str)
def test_reconstruction_order_and_orthonormality(size, tokens, dtype):
    matrix = covariance(size, tokens, dtype)
    values, vectors = eigenbasis(matrix, "x")
    assert values.dtype == vectors.dtype == torch.float64
    assert (values.diff() <= 0).all() and (values >= 0).all()
    # Backward error of a float64 eigensolver: a few units in the last place times the size.
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(size).double(), rtol=0, atol=1e-13)
    # Clamping cuts negative eigenvalues: of rounding in the matrix's own format, times its norm.
    bound = 4 * torch.finfo(dtype).eps * float(values.max()) * size**0.5
    symmetric = (matrix.double() + matrix.double().T) / 2
    torch.testing.assert_close(vectors @ values.diag() @ vectors.T, symmetric, rtol=0, atol=bound)


def test_a_singular_covariance_has_exact_rank():
    values, _ = eigenbasis(covariance(12, 3), "x")
    assert (values[:3] > 0).all()
    assert (values[3:] <= 1e-15 * values[0]).all()  # float64 rounding of the largest


def test_the_input_is_not_changed():
    matrix = covariance(5, 9)
    before = matrix.clone()
    eigenbasis(matrix, "x")
    assert torch.equal(matrix, before)


def test_an_asymmetry_of_rounding_is_averaged():
    matrix = covariance(6, 20)
    skew = torch.triu(torch.full((6, 6), 1e-9, dtype=torch.float64), 1)
    values, vectors = eigenbasis(matrix + skew - skew.T, "x")
    torch.testing.assert_close(vectors @ values.diag() @ vectors.T, matrix, rtol=0, atol=1e-14)


def test_a_zero_covariance():
    values, vectors = eigenbasis(torch.zeros(4, 4), "x")
    assert values.tolist() == [0] * 4
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(4).double(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_not_finite_names_the_layer(bad):
    matrix = covariance(5, 9)
    matrix[1, 2] = bad
    with pytest.raises(NonFiniteError, match=r"^model\.layers\.3\.mlp: expected a finite covariance"):
        eigenbasis(matrix, "model.layers.3.mlp")


def test_a_solver_that_never_converges_names_the_layer(monkeypatch):
    def fail(_matrix: Tensor) -> None:
        raise torch.linalg.LinAlgError

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.raises(NonFiniteError, match=r"^layer 7: no eigendecomposition converged"):
        eigenbasis(covariance(5, 9), "layer 7")


def test_a_solver_that_returns_nan_is_not_believed(monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: (m[0], m * float("nan")))
    with pytest.raises(NonFiniteError, match="no eigendecomposition converged"):
        eigenbasis(covariance(5, 9), "x")
