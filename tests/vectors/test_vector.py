"""The path from a pass to vectors, against plain autograd and a sketch made coordinate by coordinate."""

import pytest
import torch
from torch import Tensor

from gindex.curvature.ekfac import LayerFactors
from gindex.model.losses import CausalLanguageModel
from gindex.vectors.count_sketch import CountSketch, deal
from gindex.vectors.path import VectorBatch, VectorPath
from gindex.vectors.projection import LayerShape, ProjectionSpec

DAMPING_SCALE = 0.1
EVERYONE = range(8)

# Vectors and norms are float32 sums of up to 160 coordinates; the passes themselves are in float64.
FLOAT32 = 3e-6


def projection(factors: dict[str, LayerFactors], layers, dimension: int = 128) -> ProjectionSpec:
    shapes = tuple(
        LayerShape(
            name=layer.name,
            group=layer.group,
            rows=factors[layer.name].Lambda.shape[0],
            columns=factors[layer.name].Lambda.shape[1],
        )
        for layer in layers
    )
    return ProjectionSpec(layers=shapes, dimension=dimension, seed=3)


def make_path(setting, factors: dict[str, LayerFactors]) -> VectorPath:
    spec = projection(factors, setting.layers)
    return VectorPath(setting.layers, factors, DAMPING_SCALE, CountSketch(spec, torch.device("cpu")))


def encode(setting, path: VectorPath, ordinals) -> VectorBatch:
    return path.encode(len(ordinals), lambda: setting.losses(list(ordinals)))


def loop_sketch(V: dict[str, Tensor], spec: ProjectionSpec) -> Tensor:
    out = torch.zeros(len(next(iter(V.values()))), spec.dimension, dtype=torch.float64)
    for position, layer in enumerate(spec.layers):
        order, signs = deal(spec, position)
        start, _ = spec.slices[layer.group]
        flat = V[layer.name].flatten(1)
        for row in range(order.shape[0]):
            for bucket in range(order.shape[1]):
                out[:, start + bucket] += int(signs[row, bucket]) * flat[:, int(order[row, bucket])]
    return out


def assert_close(got: Tensor, expected: Tensor, error: float = FLOAT32) -> None:
    """Compare with a bound on the error relative to the largest entry."""
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=error * float(expected.abs().max()))


@pytest.fixture(scope="module")
def whitened(setting) -> dict[str, Tensor]:
    return setting.whitened(DAMPING_SCALE)


def test_vectors_match_autograd(setting, whitened):
    path = make_path(setting, setting.factors)
    got = encode(setting, path, EVERYONE)
    assert got.vectors.dtype == torch.float32
    assert_close(got.vectors, loop_sketch(whitened, path.projection.spec))
    torch.testing.assert_close(got.losses, setting.losses(EVERYONE))


def test_self_influence_is_the_unprojected_squared_norm(setting, whitened):
    got = encode(setting, make_path(setting, setting.factors), EVERYONE)
    expected = sum(V.square().sum((1, 2)) for V in whitened.values())
    torch.testing.assert_close(got.self_influence.double(), expected, rtol=1e-6, atol=0)  # float32 over 14 layers


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_truncation_cuts_the_full_gradient(setting, whitened, truncate, share):
    factors = truncate(setting.factors, share)
    path = make_path(setting, factors)
    got = encode(setting, path, EVERYONE)
    cut = {name: V[:, : factors[name].Lambda.shape[0], : factors[name].Lambda.shape[1]] for name, V in whitened.items()}
    assert_close(got.vectors, loop_sketch(cut, path.projection.spec))
    expected = sum(V.square().sum((1, 2)) for V in cut.values())
    torch.testing.assert_close(got.self_influence.double(), expected, rtol=1e-6, atol=0)  # float32 over 14 layers


@pytest.mark.parametrize("groups", [[[0], [1], [2], [3], [4], [5], [6], [7]], [[7, 3], [0, 1, 2], [6, 5, 4]]], ids=str)
def test_a_vector_does_not_depend_on_its_batch(setting, groups):
    """Neighbours and padding change it by float32 rounding of the sums at most: the bound below, of the largest."""
    path = make_path(setting, setting.factors)
    together = encode(setting, path, EVERYONE)
    for group in groups:
        apart = encode(setting, path, group)
        for position, n in enumerate(group):
            largest = max(float(together.vectors[n].abs().max()), 1e-30)
            assert float((apart.vectors[position] - together.vectors[n]).abs().max()) <= FLOAT32 * largest
            torch.testing.assert_close(apart.self_influence[position], together.self_influence[n], rtol=1e-6, atol=0)


def test_a_document_of_one_token_has_a_zero_vector(setting):
    got = encode(setting, make_path(setting, setting.factors), EVERYONE)
    assert not got.vectors[1].any()
    assert got.self_influence[1] == got.losses[1] == 0
    assert got.finite.all()


def test_each_slice_belongs_to_its_group(setting, whitened):
    path = make_path(setting, setting.factors)
    spec = path.projection.spec
    got = encode(setting, path, EVERYONE)
    for group, (start, stop) in spec.slices.items():
        members = {layer.name for layer in setting.layers if layer.group == group}
        alone = loop_sketch({n: V if n in members else torch.zeros_like(V) for n, V in whitened.items()}, spec)
        assert not alone[:, :start].any() and not alone[:, stop:].any()
        assert_close(got.vectors[:, start:stop], alone[:, start:stop])


def test_the_path_of_builds_in_float32(setting, whitened):
    """Float32 factors with the task that builds use: as close as float32 passes through two blocks come."""
    factors = {
        name: LayerFactors(
            Q_A=f.Q_A.to(dtype=torch.float32),
            Q_S=f.Q_S.to(dtype=torch.float32),
            Lambda=f.Lambda.float(),
            mean_eigenvalue=f.mean_eigenvalue,
        )
        for name, f in setting.factors.items()
    }
    path = make_path(setting, factors)
    task = CausalLanguageModel(setting.model)
    got = path.encode(8, lambda: task.losses(setting.batch(EVERYONE)))
    assert_close(got.vectors, loop_sketch(whitened, path.projection.spec), error=2e-5)


def test_finite_tells_which_documents_can_be_stored():
    batch = VectorBatch(
        vectors=torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [1.0, 1.0], [1.0, 1.0], [3e38, 3e38]]),
        self_influence=torch.tensor([1.0, 1.0, float("inf"), 1.0, 1.0]),
        losses=torch.tensor([1.0, 1.0, 1.0, float("nan"), 1.0]),
    )
    # The last vector is finite, but its squared norm is not.
    assert batch.finite.tolist() == [True, False, False, False, False]


def test_a_document_that_is_not_finite_leaves_its_neighbours_alone(setting):
    path = make_path(setting, setting.factors)
    clean = encode(setting, path, EVERYONE)

    def losses() -> Tensor:
        factor = torch.ones(8, dtype=torch.float64)
        factor[4] = float("nan")
        return setting.losses(EVERYONE) * factor

    spoiled = path.encode(8, losses)
    rest = [0, 1, 2, 3, 5, 6, 7]
    assert spoiled.finite.tolist() == [n != 4 for n in EVERYONE]
    assert torch.equal(spoiled.vectors[rest], clean.vectors[rest])
