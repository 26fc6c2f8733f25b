"""Projections to compare the count sketch with; that they are unbiased is tested with those of the core."""

import math

import pytest
import torch
from torch import Tensor

from gindex.lab.projections.kronecker import largest_divisor
from gindex.vectors.projection import LayerShape, ProjectionSpec, make_projection

# Layers of unequal shapes; two in the first group, one smaller than its slice, one with a single coordinate.
SHAPES = (
    LayerShape(name="a", group="block 0", rows=9, columns=13),
    LayerShape(name="b", group="block 0", rows=4, columns=5),
    LayerShape(name="c", group="block 1", rows=7, columns=8),
    LayerShape(name="d", group="head", rows=1, columns=1),
)


def spec(dimension: int, kind: str) -> ProjectionSpec:
    return ProjectionSpec(layers=SHAPES, dimension=dimension, seed=0, kind=kind)


def matrix(projection: ProjectionSpec, layer: LayerShape) -> Tensor:
    """Return what a projection does to every coordinate of a layer, [P, R, W]."""
    units = torch.eye(layer.rows * layer.columns, dtype=torch.float64).view(-1, layer.rows, layer.columns)
    out = torch.zeros(len(units), projection.dimension, dtype=torch.float64)
    make_projection(projection, torch.device("cpu")).add(out, layer.name, units)
    return out[:, slice(*projection.slices[layer.group])].view(layer.rows, layer.columns, -1)


@pytest.mark.parametrize("dimension", [24, 40, 456])  # slices of 8, 16 and 8, and 152: not a multiple of 64
def test_rademacher_holds_independent_signs(dimension):
    projection = spec(dimension, kind="rademacher")
    drawn = []
    for layer in SHAPES[:3]:
        got = matrix(projection, layer)
        signs = got * math.sqrt(got.shape[-1])
        torch.testing.assert_close(signs.abs(), torch.ones_like(signs), rtol=1e-6, atol=0)  # signs kept in float32
        drawn.append(signs.flatten())
    assert not torch.equal(drawn[0][: len(drawn[1])], drawn[1])
    everything = torch.cat(drawn)
    assert abs(float(everything.mean())) < 4.5 / math.sqrt(len(everything))
    assert abs(float((everything[:-1] * everything[1:]).mean())) < 4.5 / math.sqrt(len(everything))


def test_kronecker_is_a_product_of_two_sides():
    projection = spec(144, kind="kronecker")  # slices of 48 = 6 x 8
    for layer in SHAPES[:3]:
        got = matrix(projection, layer).view(layer.rows, layer.columns, 6, 8) * math.sqrt(48)
        torch.testing.assert_close(got.abs(), torch.ones_like(got), rtol=1e-5, atol=0)  # sides in float32
        rows, columns = got[:, 0, :, 0], got[0, :, 0, :]
        expected = torch.einsum("ap,br->abpr", rows, columns) * got[0, 0, 0, 0]
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)
        assert abs(float(rows.mean())) < 4.5 / math.sqrt(rows.numel())


@pytest.mark.parametrize(("number", "expected"), [(1024, 32), (48, 6), (8, 2), (7, 1), (1, 1), (1000, 25)])
def test_largest_divisor(number, expected):
    assert largest_divisor(number) == expected
