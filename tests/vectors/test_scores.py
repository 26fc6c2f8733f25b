"""Inner products with coded vectors against float64 products with what the codes stand for."""

import pytest
import torch

from gindex.vectors.codes import decode, encode
from gindex.vectors.scores import slice_scores

ROUNDING = {1: 6e-5, 2: 1e-6, 4: 1e-6, 8: 1e-6, 16: 1e-6}
"""Relative to the product of the lengths. At one bit a query coordinate errs by at most max |q| / 65,278, the sum by
at most sqrt(W) max |q| / |q| times that in a slice of width W: 4e-5 for 8, 6e-5 for 1,024; others sum float32."""


@pytest.mark.parametrize("bits", ROUNDING)
@pytest.mark.parametrize("queries", [1, 5, 40])
def test_slices_add_up_to_the_inner_product(bits, queries):
    slices = [(0, 8), (8, 264), (264, 1288), (1288, 1304)]
    generator = torch.Generator().manual_seed(bits)
    vectors = torch.randn(37, 1304, generator=generator) * torch.exp(torch.randn(37, 1, generator=generator))
    q = torch.randn(queries, 1304, generator=generator)
    q[0, :8] = 0  # a slice without any signal
    codes, scales = encode(vectors, bits, slices)
    scores = slice_scores(codes, scales, bits, slices, q)
    decoded = decode(codes, scales, bits, slices).double()
    assert scores.shape == (4, queries, 37) and scores[0, 0].abs().max() == 0
    for score, (a, b) in zip(scores, slices, strict=True):
        expected = q[:, a:b].double() @ decoded[:, a:b].T
        size = (q[:, a:b].norm(dim=1)[:, None] * decoded[:, a:b].norm(dim=1)).double()
        assert ((score - expected).abs() <= ROUNDING[bits] * size + 1e-12).all()


def test_no_vectors():
    codes, scales = torch.zeros(0, 2, dtype=torch.uint8), torch.zeros(0, 1)
    assert slice_scores(codes, scales, 1, [(0, 16)], torch.ones(1, 16)).shape == (1, 1, 0)
