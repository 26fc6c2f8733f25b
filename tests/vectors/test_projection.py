"""Projections are unbiased, foldable, and the same everywhere; the count sketch is balanced."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gindex.config import PROJECTIONS
from gindex.errors import ConfigError
from gindex.vectors.count_sketch import CountSketch, deal
from gindex.vectors.projection import LayerShape, ProjectionSpec, fold, hash64, make_projection, signs_of

# Layers of unequal shapes; two in the first group, one smaller than its slice, one with a single coordinate.
SHAPES = (
    LayerShape(name="a", group="block 0", rows=9, columns=13),
    LayerShape(name="b", group="block 0", rows=4, columns=5),
    LayerShape(name="c", group="block 1", rows=7, columns=8),
    LayerShape(name="d", group="head", rows=1, columns=1),
)


KINDS = pytest.mark.parametrize("kind", PROJECTIONS.names())


def spec(dimension: int, seed: int = 0, kind: str = "count-sketch") -> ProjectionSpec:
    return ProjectionSpec(layers=SHAPES, dimension=dimension, seed=seed, kind=kind)


def gradients(documents: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Return heavy-tailed gradients [N, P, R] of each layer; those of two documents correlate."""
    generator = torch.Generator().manual_seed(seed)
    shared = {s.name: torch.randn(s.rows, s.columns, generator=generator, dtype=torch.float64) for s in SHAPES}
    return {
        s.name: (shared[s.name] + torch.randn(documents, s.rows, s.columns, generator=generator, dtype=torch.float64))
        ** 3
        for s in SHAPES
    }


def sketch(V: dict[str, Tensor], projection: ProjectionSpec) -> Tensor:
    sketcher = make_projection(projection, torch.device("cpu"))
    out = torch.zeros(len(V["a"]), projection.dimension, dtype=torch.float64)
    for layer in projection.layers:
        sketcher.add(out, layer.name, V[layer.name])
    return out


def loop_sketch(V: dict[str, Tensor], projection: ProjectionSpec) -> Tensor:
    """Add every coordinate to its bucket, one at a time."""
    out = torch.zeros(len(V["a"]), projection.dimension, dtype=torch.float64)
    for position, layer in enumerate(projection.layers):
        order, signs = deal(projection, position)
        start, _ = projection.slices[layer.group]
        flat = V[layer.name].flatten(1)
        for row in range(order.shape[0]):
            for bucket in range(order.shape[1]):
                out[:, start + bucket] += int(signs[row, bucket]) * flat[:, int(order[row, bucket])]
    return out


def splitmix64(count: int) -> list[int]:
    """Return the first outputs of SplitMix64 from state 0, in Python integers (Steele et al. 2014)."""
    mask, state, outputs = (1 << 64) - 1, 0, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(z ^ (z >> 31))
    return outputs


def test_hash_is_splitmix64():
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert hash64(np.arange(4, dtype=np.uint64)).tolist() == published == splitmix64(4)
    assert hash64(np.arange(2000, dtype=np.uint64)).tolist() == splitmix64(2000)


def test_hash_wraps_at_64_bits():
    # Key k stands for state (k + 1) * golden, so the largest key is state 0, which mixes to 0.
    assert hash64(np.array([2**64 - 1], np.uint64)).tolist() == [0]


def test_projection_is_the_recorded_one():
    """Golden values: a change here makes every stored index unreadable, and needs another fingerprint kind."""
    projection = ProjectionSpec(
        layers=(
            LayerShape(name="a", group="0", rows=3, columns=5),
            LayerShape(name="b", group="1", rows=4, columns=4),
        ),
        dimension=16,
        seed=7,
    )
    assert projection.fingerprint == "9918a214f26e8e85a3c2495fabbc911e9ef44992bc614c8e25e3305bdd42f005"
    order, signs = deal(projection, 1)
    assert order.tolist() == [[3, 2, 1, 5, 10, 9, 15, 6], [0, 4, 11, 13, 14, 12, 8, 7]]
    assert signs.tolist() == [[-1, -1, -1, 1, 1, -1, 1, 1], [1, -1, 1, 1, 1, -1, 1, -1]]


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"dimension": 72},
        {"layers": SHAPES[:3]},
        {"layers": (SHAPES[1], SHAPES[0], *SHAPES[2:])},
        {"layers": (*SHAPES[:3], LayerShape(name="e", group="head", rows=1, columns=1))},
        {"layers": (*SHAPES[:3], LayerShape(name="d", group="tail", rows=1, columns=1))},
        {"layers": (LayerShape(name="a", group="block 0", rows=13, columns=9), *SHAPES[1:])},
        {"kind": "kronecker"},
    ],
    ids=["seed", "dimension", "fewer layers", "order", "name", "group", "shape", "kind"],
)
def test_fingerprint_depends_on_everything(changed):
    base = {"layers": SHAPES, "dimension": 64, "seed": 0}
    assert ProjectionSpec(**base | changed).fingerprint != ProjectionSpec(**base).fingerprint
    assert ProjectionSpec(**base).fingerprint == spec(64).fingerprint


@pytest.mark.parametrize("dimension", [24, 40, 64, 512])
def test_every_coordinate_has_one_bucket_and_the_loads_are_even(dimension):
    projection = spec(dimension)
    for position, layer in enumerate(projection.layers):
        order, signs = deal(projection, position)
        dealt = signs != 0
        assert sorted(order[dealt].tolist()) == list(range(layer.rows * layer.columns))
        assert set(np.unique(signs[dealt])) <= {-1, 1}
        loads = dealt.sum(0)
        assert loads.max() - loads.min() <= 1
        start, stop = projection.slices[layer.group]
        assert order.shape[1] == stop - start
    for group in projection.groups:
        members = [n for n, layer in enumerate(projection.layers) if layer.group == group]
        loads = sum((deal(projection, n)[1] != 0).sum(0) for n in members)
        assert loads.max() - loads.min() <= 1


def test_signs_and_layers_are_independent():
    """Fair signs, and no relation of the order or the signs between two layers of one shape, or between seeds."""
    shapes = tuple(LayerShape(name=name, group="g", rows=100, columns=100) for name in "ab")
    views = []
    for seed in (0, 1):
        projection = ProjectionSpec(layers=shapes, dimension=128, seed=seed)
        for position in (0, 1):
            order, signs = deal(projection, position)
            real = signs != 0
            by_coordinate, bucket = np.zeros(10_000), np.zeros(10_000)
            by_coordinate[order[real]] = signs[real]
            bucket[order[real]] = np.nonzero(real)[1]
            views.append((by_coordinate, bucket))
    limit = 4.5 / math.sqrt(10_000)  # standard deviations of a mean of 10,000
    for n, (signs, bucket) in enumerate(views):
        assert abs(signs.mean()) < limit
        assert abs(np.corrcoef(signs, bucket)[0, 1]) < limit
        assert abs(np.corrcoef(signs[:-1], signs[1:])[0, 1]) < limit
        for others, other_bucket in views[n + 1 :]:
            assert abs((signs * others).mean()) < limit
            assert abs(np.corrcoef(bucket, other_bucket)[0, 1]) < limit


@pytest.mark.parametrize("dimension", [24, 40, 512])
def test_sketch_matches_a_loop_over_coordinates(dimension):
    V = gradients(3)
    # float64, up to 14 terms a bucket.
    torch.testing.assert_close(sketch(V, spec(dimension)), loop_sketch(V, spec(dimension)), rtol=1e-12, atol=1e-12)


@KINDS
def test_projection_is_linear_and_adds_into_what_is_there(kind):
    V, projection = gradients(2), spec(40, kind=kind)
    once = sketch(V, projection)
    twice = sketch({name: 2 * v for name, v in V.items()}, projection)
    torch.testing.assert_close(twice, 2 * once, rtol=1e-13, atol=0)
    out, sketcher = torch.ones(2, 40, dtype=torch.float64), make_projection(projection, torch.device("cpu"))
    sketcher.add(out, "a", V["a"])
    own = slice(*projection.slices["block 0"])
    assert (out[:, own.stop :] == 1).all()
    only_a = {name: v if name == "a" else torch.zeros_like(v) for name, v in V.items()}
    torch.testing.assert_close(out[:, own] - 1, sketch(only_a, projection)[:, own], rtol=1e-12, atol=1e-12)


@KINDS
def test_a_document_does_not_depend_on_its_neighbours(kind):
    V, projection = gradients(6), spec(40, kind=kind)
    together = sketch(V, projection)
    for n in range(6):
        alone = sketch({name: v[n : n + 1] for name, v in V.items()}, projection)[0]
        torch.testing.assert_close(alone, together[n], rtol=1e-12, atol=1e-12)  # matrix products may sum otherwise


@KINDS
def test_score_is_unbiased_in_every_slice(kind):
    """The mean over seeds lies within 4 standard errors of the unprojected score, in each group and in all."""
    V, seeds = gradients(2), 1000
    scores: dict[str, list[float]] = {group: [] for group in spec(64).groups}
    for seed in range(seeds):
        projection = spec(64, seed, kind)
        x, y = sketch(V, projection)
        for group, (start, stop) in projection.slices.items():
            scores[group].append(float(x[start:stop] @ y[start:stop]))
    totals = np.zeros(seeds)
    for group, values in scores.items():
        exact = sum(float((V[s.name][0] * V[s.name][1]).sum()) for s in SHAPES if s.group == group)
        totals += values
        error = max(np.std(values) / math.sqrt(seeds), 1e-9 * abs(exact))  # one coordinate has no spread
        assert abs(np.mean(values) - exact) < 4 * error, group
    exact = sum(float((v[0] * v[1]).sum()) for v in V.values())
    assert abs(totals.mean() - exact) < 4 * totals.std() / math.sqrt(seeds)


@KINDS
def test_norm_is_unbiased(kind):
    V = gradients(1)
    norms = np.array([float(sketch(V, spec(64, seed, kind)).square().sum()) for seed in range(500)])
    exact = sum(float(v.square().sum()) for v in V.values())
    assert abs(norms.mean() - exact) < 4 * norms.std() / math.sqrt(500)


def test_spread_falls_with_the_root_of_the_dimension():
    """One dense layer, dimensions 16, 64 and 256: each standard deviation is half of the one before."""
    shape = (LayerShape(name="a", group="g", rows=40, columns=50),)
    x, y = torch.randn(2, 40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spreads = []
    for dimension in (16, 64, 256):
        scores = []
        for seed in range(300):
            out = torch.zeros(2, dimension, dtype=torch.float64)
            projection = ProjectionSpec(layers=shape, dimension=dimension, seed=seed)
            CountSketch(projection, torch.device("cpu")).add(out, "a", torch.stack([x, y]))
            scores.append(float(out[0] @ out[1]))
        spreads.append(np.std(scores))
        # Var = (|x|^2 |y|^2 + <x, y>^2) / D for dense vectors, less 1 part in 2000 / D as no bucket meets itself.
        predicted = math.sqrt((float(x.square().sum() * y.square().sum()) + float((x * y).sum()) ** 2) / dimension)
        # A standard deviation from 300 scores is known to 4% (1 sigma); balance takes off up to D / 2000, 13%.
        assert spreads[-1] == pytest.approx(predicted, rel=0.2)
    assert spreads[0] / spreads[1] == pytest.approx(2, rel=0.2)
    assert spreads[1] / spreads[2] == pytest.approx(2, rel=0.2)


def test_a_slice_wider_than_its_group_loses_nothing():
    """With as many buckets as coordinates, of all layers together, each is alone and the score is exact."""
    shapes = tuple(LayerShape(name=name, group="g", rows=3, columns=5) for name in "abc")
    V = {name: torch.randn(2, 3, 5, dtype=torch.float64) for name in "abc"}
    for dimension in (48, 64):
        out = sketch(V, ProjectionSpec(layers=shapes, dimension=dimension, seed=0))
        exact = sum((v[0] * v[1]).sum() for v in V.values())
        torch.testing.assert_close(out[0] @ out[1], exact, rtol=1e-12, atol=1e-12)  # another order


def test_signs_are_the_bits_of_the_hashes_lowest_first():
    hashes = np.array([1, 2**63, 5], np.uint64)
    assert np.flatnonzero(signs_of(hashes)).tolist() == [0, 127, 128, 130]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="projection: expected one of count-sketch, kronecker, rademacher"):
        spec(64, kind="fourier")


def test_slices_cover_the_dimension_in_forward_order():
    projection = spec(40)
    assert list(projection.slices) == ["block 0", "block 1", "head"]
    assert list(projection.slices.values()) == [(0, 16), (16, 32), (32, 40)]
    for dimension in range(24, 200, 8):
        bounds = list(spec(dimension).slices.values())
        assert bounds[0][0] == 0 and bounds[-1][1] == dimension
        assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
        widths = [stop - start for start, stop in bounds]
        assert all(width % 8 == 0 for width in widths) and max(widths) - min(widths) <= 8


@pytest.mark.parametrize("dimension", [0, 8, 16, 23, 25, 100])
def test_a_dimension_that_does_not_fit_is_refused(dimension):
    with pytest.raises(ConfigError, match=rf"dimension: expected a multiple of 8 of at least 24 .*, found {dimension}"):
        spec(dimension)


@pytest.mark.parametrize("times", [0, 1, 2, 3])
@pytest.mark.parametrize("dimension", [24, 40, 96])
def test_fold_is_the_sketch_with_buckets_modulo_the_narrower_slice(dimension, times):
    V, projection = gradients(2), spec(dimension)
    folded = fold(sketch(V, projection), projection, times)
    expected = torch.zeros(2, dimension // 2**times, dtype=torch.float64)
    for position, layer in enumerate(projection.layers):
        order, signs = deal(projection, position)
        start, stop = (bound // 2**times for bound in projection.slices[layer.group])
        flat = V[layer.name].flatten(1)
        for (_, bucket), coordinate, sign in zip(np.ndindex(order.shape), order.ravel(), signs.ravel(), strict=True):
            expected[:, start + bucket % (stop - start)] += int(sign) * flat[:, int(coordinate)]
    torch.testing.assert_close(folded, expected, rtol=1e-12, atol=1e-12)  # float64 sums in another order


def test_fold_adds_the_halves_of_each_slice():
    projection = spec(40)
    v = torch.arange(40.0)[None]
    halves = [v[:, 0:8] + v[:, 8:16], v[:, 16:24] + v[:, 24:32], v[:, 32:36] + v[:, 36:40]]
    assert torch.equal(fold(v, projection, 1), torch.cat(halves, 1))
    assert torch.equal(fold(fold(v, projection, 0), projection, 0), v)


@KINDS
def test_folded_scores_are_unbiased(kind):
    V = gradients(2)
    scores = []
    for seed in range(600):
        x, y = fold(sketch(V, spec(96, seed, kind)), spec(96, seed, kind), 2)
        scores.append(float(x @ y))
    exact = sum(float((v[0] * v[1]).sum()) for v in V.values())
    assert abs(np.mean(scores) - exact) < 4 * np.std(scores) / math.sqrt(600)
