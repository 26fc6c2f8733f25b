"""R against its dense formula in float64, and what it must not depend on."""

import math

import pytest
import torch
from torch import Tensor

from gindex.errors import ConfigError, NonFiniteError, ShapeError
from gindex.lab.second_level import curvature as module
from gindex.lab.second_level.curvature import SecondMoment, first_basis, fit_second_level, second_level

D = 40
EXACT = {"rtol": 1e-9, "atol": 1e-9}
"""Float64 throughout; eigenvectors of near-equal eigenvalues lose a few digits."""


def correlated(count: int, seed: int = 0) -> Tensor:
    """Vectors [count, D] with a decaying spectrum in a random basis."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64))
    scales = torch.arange(1, D + 1, dtype=torch.float64).pow(-1.0)
    return (torch.randn(count, D, generator=generator, dtype=torch.float64) * scales) @ basis


def dense(vectors_ND: Tensor, mu: float) -> Tensor:
    """R [D, D] as the design writes it, in the unit in which it is the identity for C = c I."""
    C = vectors_ND.T @ vectors_ND / len(vectors_ND)
    c = C.diagonal().mean()
    values, basis = torch.linalg.eigh(C + mu * c * torch.eye(D, dtype=C.dtype))
    return basis @ torch.diag((c * (1 + mu) / values).sqrt()) @ basis.T


def moment_of(vectors_ND: Tensor, basis_DK: Tensor | None = None) -> SecondMoment:
    moment = SecondMoment(D, basis_DK)
    moment.add(vectors_ND)
    return moment


@pytest.mark.parametrize("mu", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("count", [200, 12])
def test_it_equals_the_dense_formula(mu, count):
    vectors, asked = correlated(count), correlated(5, seed=1)
    level = second_level(moment_of(vectors), mu)
    R = dense(vectors, mu)
    torch.testing.assert_close(level.apply(asked), asked @ R, **EXACT)
    torch.testing.assert_close(level.apply(asked, power=2), asked @ R @ R, **EXACT)
    # Scores are the same whether R is on both sides or R^2 on one.
    torch.testing.assert_close(
        level.apply(asked) @ level.apply(vectors).T, level.apply(asked, power=2) @ vectors.T, rtol=1e-9, atol=1e-8
    )


@pytest.mark.parametrize("columns", [D, None])
def test_leading_directions_and_rest_are_exact_when_all_are_kept(columns):
    """With a basis of D columns, and with fewer than D where they are as many as C has ranks."""
    vectors = correlated(200 if columns else 12)
    basis = torch.randn(D, columns or 12 + 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    level = second_level(moment_of(vectors, basis))
    assert len(level.values_K) == min(D, len(vectors))
    # Through B^T C B, whose condition is that of C times the square of that of the random B.
    torch.testing.assert_close(level.apply(vectors), vectors @ dense(vectors, level.mu), rtol=1e-6, atol=1e-6)


def test_leading_directions_keep_the_trace():
    vectors = correlated(200)
    values = torch.linalg.eigvalsh(vectors.T @ vectors).flip(0)
    level = second_level(moment_of(vectors), rank=7)
    mean = values.mean()
    torch.testing.assert_close(level.values_K, values[:7] / mean, **EXACT)
    assert level.rest == pytest.approx(float(values[7:].mean() / mean), rel=1e-9)
    torch.testing.assert_close(level.directions_KD @ level.directions_KD.T, torch.eye(7, dtype=torch.float64), **EXACT)


def test_a_second_pass_finds_the_leading_directions_of_a_slow_spectrum(monkeypatch):
    """Nystroem from random columns mixes directions; a pass over their own span sets most of that right."""
    monkeypatch.setattr(module, "DENSE_DIMENSION", 8)
    vectors = correlated(300).float()
    truth = second_level(moment_of(vectors.double()), rank=10)
    errors = []
    for passes in (1, 2, 4):
        level = fit_second_level(lambda: [vectors], D, rank=10, passes=passes)
        errors.append(float((level.apply(vectors).double() - truth.apply(vectors.double())).norm() / vectors.norm()))
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < errors[1]


@pytest.mark.parametrize("basis", [None, first_basis(D, 16).double()])
def test_it_does_not_depend_on_how_the_moment_was_summed(basis):
    vectors = correlated(90)
    whole = second_level(moment_of(vectors, basis))
    pieces = moment_of(vectors[:0], basis)
    for block in vectors.flip(0).split(7):
        pieces.merge(moment_of(block, basis))
    torch.testing.assert_close(second_level(pieces).apply(vectors), whole.apply(vectors), rtol=1e-7, atol=1e-7)
    # Only its shape counts, not how many vectors there were.
    pieces.merge(moment_of(vectors, basis))
    torch.testing.assert_close(second_level(pieces).apply(vectors), whole.apply(vectors), rtol=1e-7, atol=1e-7)


def test_it_is_neutral_where_the_moment_is_a_multiple_of_the_identity():
    vectors = 3.0 * torch.eye(D, dtype=torch.float64)
    asked = correlated(5)
    for basis in (None, first_basis(D, 16).double()):
        level = second_level(moment_of(vectors, basis), mu=0.3)
        torch.testing.assert_close(level.apply(asked), asked, **EXACT)


def test_float32_blocks_agree_with_float64(monkeypatch):
    monkeypatch.setattr(module, "DENSE_DIMENSION", 8)
    vectors = correlated(30)
    blocks = [block.float() for block in vectors.split(8)]
    got = fit_second_level(lambda: iter(blocks), D, count=len(vectors))
    expected = vectors @ dense(vectors, got.mu)
    # Products are float32, and directions below its rounding are left out.
    assert float((got.apply(vectors) - expected).norm() / expected.norm()) < 1e-4


def test_vectors_that_are_all_zero_change_nothing():
    level = fit_second_level(lambda: [torch.zeros(3, D)], D)
    asked = correlated(2)
    torch.testing.assert_close(level.apply(asked), asked, **EXACT)


def test_bad_input_is_refused():
    moment = SecondMoment(D)
    with pytest.raises(NonFiniteError, match="finite vectors"):
        moment.add(torch.full((1, D), math.nan))
    with pytest.raises(ShapeError, match=r"\[N, 40\]"):
        moment.add(torch.zeros(1, D + 1))
    with pytest.raises(ShapeError, match="same basis"):
        moment.merge(SecondMoment(D, first_basis(D, 4)))
    with pytest.raises(ConfigError, match="mu"):
        second_level(moment, mu=0.0)
    with pytest.raises(ConfigError, match="rank"):
        fit_second_level(lambda: [], D, rank=0)
