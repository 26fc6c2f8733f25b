"""Bases of a side: a matrix, blocks and unit vectors do what the matrix Q that they stand for does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gindex.curvature.basis import Basis, BlockBasis, DenseBasis, UnitBasis
from gindex.curvature.covariance import TokenMoment
from gindex.curvature.ekfac import LayerFactors, rotated_gradients
from gindex.curvature.kinds import EKFAC
from gindex.errors import NonFiniteError
from gindex.model.sides import Side

WIDTH = 7
SIDES = {"matrix": Side(WIDTH), "blocks": Side(WIDTH, 3), "unit vectors": Side(WIDTH, 1)}
EXACT = {"rtol": 1e-12, "atol": 1e-12}
KINDS = {"matrix": DenseBasis, "blocks": BlockBasis, "unit vectors": UnitBasis}


def activations(tokens: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    return torch.randn(tokens, WIDTH, generator=generator, dtype=torch.float64) @ mixing


def moment(side: Side, x_MX: Tensor) -> TokenMoment:
    summed = TokenMoment.zeros(side, torch.float64, torch.device("cpu"))
    for batch_MX in x_MX.split(11):
        summed.add(batch_MX, torch.ones(len(batch_MX), dtype=torch.bool))
    return summed


@pytest.fixture(params=list(SIDES))
def made(request) -> tuple[str, Side, Tensor, Basis]:
    side = SIDES[request.param]
    return request.param, side, *EKFAC.decompose(moment(side, activations()), "a side")


def test_the_basis_diagonalises_what_its_structure_keeps_of_the_covariance(made):
    """Reference: dense algebra on the covariance with zeros outside its diagonal blocks."""
    kind, side, values, basis = made
    x_MX = activations()
    covariance = x_MX.T @ x_MX / len(x_MX)
    blocks = side.blocks or [slice(n, n + 1) for n in range(WIDTH)]
    kept = torch.zeros_like(covariance)
    for block in blocks:
        kept[block, block] = covariance[block, block]
    Q = basis.matrix()
    assert isinstance(basis, KINDS[kind])
    torch.testing.assert_close(Q.T @ Q, torch.eye(WIDTH, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(Q @ values.diag() @ Q.T, kept, **EXACT)
    assert (values.diff() <= 0).all()  # largest first, over all blocks


def test_every_operation_is_the_matrix_product(made):
    _, _, _, whole = made
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, WIDTH, generator=generator, dtype=torch.float64)
    directions = torch.tensor([4, 0, 5])
    for basis in (whole, whole.leading(4), whole.leading(1), whole.some(directions), whole.some(directions).leading(2)):
        Q = basis.matrix()
        assert Q.shape == basis.shape == (WIDTH, basis.rank)
        torch.testing.assert_close(basis.into(x), x @ Q, **EXACT)
        torch.testing.assert_close(basis.rows_into(x.mT), Q.T @ x.mT, **EXACT)
        y = torch.randn(2, 5, basis.rank, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(basis.out_of(y), y @ Q.T, **EXACT)
        torch.testing.assert_close(basis.rows_out_of(y.mT), Q @ y.mT, **EXACT)
    torch.testing.assert_close(whole.leading(4).matrix(), whole.matrix()[:, :4], **EXACT)
    torch.testing.assert_close(whole.some(directions).matrix(), whole.matrix()[:, directions], **EXACT)


def test_a_basis_is_read_as_it_was_stored(made):
    _, side, _, basis = made
    rows, blocks = basis.stored()
    for rank in (WIDTH, 3):
        if blocks is None:
            read = DenseBasis(rows[:rank].T)
        elif rows is None:
            read = UnitBasis(WIDTH, blocks[:rank], torch.float64)
        else:
            read = BlockBasis.from_rows(side, rows[:rank], blocks[:rank])
        assert torch.equal(read.matrix(), basis.leading(rank).matrix())


def test_number_formats(made):
    narrow = made[3].to(dtype=torch.float32)
    assert narrow.dtype == torch.float32 and narrow.matrix().dtype == torch.float32
    torch.testing.assert_close(narrow.matrix(), made[3].matrix().float())


def test_a_side_in_one_block_is_a_side_of_one_matrix():
    for block in (WIDTH, WIDTH + 5):
        values, basis = EKFAC.decompose(moment(Side(WIDTH, block), activations()), "a side")
        expected, matrix = EKFAC.decompose(moment(Side(WIDTH), activations()), "a side")
        assert torch.equal(values, expected) and torch.equal(basis.matrix(), matrix.matrix())


@pytest.mark.parametrize(
    ("side", "numbers", "cubes", "widest"),
    [(Side(7), 49, 343, 7), (Side(7, 3), 9 + 9 + 1, 27 + 27 + 1, 3), (Side(7, 1), 0, 0, 0), (Side(0), 0, 0, 0)],
)
def test_costs_of_sides(side, numbers, cubes, widest):
    assert (side.numbers, side.cubes, side.widest) == (numbers, cubes, widest)


STRUCTURES = [None, 1, 3, 4, 7, 100]  # of a side of 10: 7 leaves a last block of 3, and 100 is one block of all


def values(width: int, seed: int, tokens: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(tokens, width, generator=generator, dtype=torch.float64) @ mixing


def basis_of(width: int, block: int | None, seed: int = 0) -> Basis:
    return EKFAC.decompose(moment(Side(width, block), values(width, seed)), "a side")[1]


@given(width=st.integers(2, 12), block=st.sampled_from(STRUCTURES), seed=st.integers(0, 99))
def test_some_directions_in_any_order_are_columns_of_the_matrix(width, block, seed):
    basis = basis_of(width, block)
    chosen = torch.randperm(width, generator=torch.Generator().manual_seed(seed))[: width // 2 + 1]
    some = basis.some(chosen)
    torch.testing.assert_close(some.matrix(), basis.matrix()[:, chosen], **EXACT)
    torch.testing.assert_close(some.leading(1).matrix(), basis.matrix()[:, chosen[:1]], **EXACT)


@pytest.mark.parametrize("block", [2, 5])
def test_blocks_are_the_whole_where_the_covariance_is_block_diagonal(block):
    """Eigenvectors may differ by their sign: rotated gradients are compared by magnitude. Eigenvalues to 1e-9."""
    x_MX = torch.block_diag(*[values(block, seed, 20) for seed in range(10 // block)])
    (expected, whole), (found, blocks) = (
        EKFAC.decompose(moment(Side(10, structure), x_MX), "a side") for structure in (None, block)
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    G = torch.randn(6, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(blocks.into(G).abs(), whole.into(G).abs(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tokens", [1, 5, 300])  # short documents rotate their tokens, long ones their gradient
@pytest.mark.parametrize("structures", [(3, 1), (1, 3), (1, 1), (None, 4)])
def test_gradients_are_rotated_as_by_matrices(structures, tokens):
    Q_A, Q_S = basis_of(9, structures[0]).leading(7), basis_of(8, structures[1], seed=1).leading(5)
    a, g = values(9, 1, 2 * tokens).view(2, tokens, 9), values(8, 2, 2 * tokens).view(2, tokens, 8)
    expected = Q_S.matrix().T @ (g.mT @ a) @ Q_A.matrix()
    found = rotated_gradients(a, g, Q_A, Q_S)
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("structures", [(3, 1), (1, 3), (1, 1)])
def test_preconditioning_and_whitening_are_the_dense_inverse(structures):
    """1e-9: the condition of H is a few hundred."""
    Q_A, Q_S = basis_of(5, structures[0]), basis_of(4, structures[1], seed=1)
    Lambda = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factors = LayerFactors(Q_A=Q_A, Q_S=Q_S, Lambda=Lambda, mean_eigenvalue=float(Lambda.mean()))
    Q = torch.kron(Q_S.matrix(), Q_A.matrix())
    H = Q @ torch.diag(Lambda.flatten() + factors.damping(0.1)) @ Q.T
    G = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.linalg.solve(H, G.flatten(1).T).T.view_as(G)
    torch.testing.assert_close(factors.precondition(factors.rotate(G), 0.1), expected, rtol=1e-9, atol=1e-9)
    norms = (G * expected).sum((1, 2))
    torch.testing.assert_close(factors.whiten(G, 0.1).square().sum((1, 2)), norms, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block", STRUCTURES)
def test_the_moment_of_all_tokens_is_the_sum_of_two(block):
    side, x_MX = Side(10, block), values(10, 0)
    both, first, second = (moment(side, some) for some in (x_MX, x_MX[:15], x_MX[15:]))
    first.add_moment(second)
    assert first.tokens == both.tokens
    for number in range(len(both.totals)):
        torch.testing.assert_close(first.mean(number), both.mean(number), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("block", [1, 4])
def test_a_side_with_a_variance_that_is_not_finite_is_refused(block):
    summed = moment(Side(10, block), values(10, 0))
    summed.totals[-1].fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="a side: expected a finite covariance"):
        EKFAC.decompose(summed, "a side")
