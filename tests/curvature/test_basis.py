"""Bases of a side: a matrix, blocks and unit vectors do what the matrix Q that they stand for does."""

import pytest
import torch
from torch import Tensor

from gindex.curvature.basis import Basis, BlockBasis, DenseBasis, UnitBasis
from gindex.curvature.covariance import TokenMoment
from gindex.curvature.kinds import EKFAC
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
